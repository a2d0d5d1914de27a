package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	testnetwork "github.com/certanchor/certanchor/test-network"
)

func newNetworkStatusCommand(dir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show every node: state, endpoint, ledger height, health, memory",
		Long: `status looks at all nodes at once and shows what it found. A node is running, frozen (suspended), stopped (on purpose) or
dead (killed, or ended by itself). Height is the number of blocks in its ledger; * marks the orderer that leads.`,
		Example: `  certanchor network status
  certanchor network status --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := testnetwork.Open(*dir)
			if err != nil {
				return err
			}
			return printStatus(cmd, n, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(cmd *cobra.Command, n *testnetwork.Network, asJSON bool) error {
	status, err := n.Status(cmd.Context())
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), status)
	}
	return printStatusTable(cmd.OutOrStdout(), status)
}

func printStatusTable(out io.Writer, status testnetwork.Status) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tORGANISATION\tSTATE\tPID\tENDPOINT\tHEIGHT\tMEMORY\tHEALTH")
	var memory int64
	for _, node := range status.Nodes {
		memory += node.RSS
		health := "healthy"
		if !node.Healthy {
			health = node.Problem
		}
		height := dash(node.Height)
		if node.Leader {
			height += " *"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", node.Name, node.MSPID, node.State, dash(uint64(node.PID)),
			node.Endpoints[string(node.Role)], height, megabytes(node.RSS), health)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&table, "\nchannel %s, %s, in %s; %s in all\n", status.Channel, status.Consensus, status.Dir, megabytes(memory))
	_, err := out.Write(table.Bytes())
	return err
}

func dash(number uint64) string {
	if number == 0 {
		return "-"
	}
	return strconv.FormatUint(number, 10)
}

func megabytes(bytes int64) string {
	if bytes == 0 {
		return "-"
	}
	return strconv.FormatInt((bytes+1<<19)>>20, 10) + " MiB"
}

func newNetworkLogsCommand(dir *string) *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "show a node's log",
		Long:  "logs shows the end of a node's log, or all of it with --tail -1, and with --follow what is added until it is interrupted.",
		Example: `  certanchor network logs org1.peer
  certanchor network logs org1.orderer --tail 100 --follow`,
		Args:              oneArg("the name of a node, for example org1.peer"),
		ValidArgsFunction: completeNodes(dir),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := testnetwork.Open(*dir)
			if err != nil {
				return err
			}
			name, err := n.LogFile(args[0])
			if err != nil {
				return err
			}
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := copyTail(cmd.OutOrStdout(), file, lines); err != nil || !follow {
				return err
			}
			return copyNew(cmd.Context(), cmd.OutOrStdout(), file)
		},
	}
	cmd.Flags().IntVar(&lines, "tail", 50, "how many lines of the end to show; -1 shows all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on showing what is added")
	return cmd
}

// copyTail copies the last lines of file, all of them if lines is negative, and leaves the position at its end.
func copyTail(out io.Writer, file *os.File, lines int) error {
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	start := len(content)
	if lines < 0 {
		start = 0
	}
	for ; lines > 0 && start > 0; lines-- {
		// The newline that ends a line belongs to it.
		start = bytes.LastIndexByte(content[:start-1], '\n') + 1
	}
	_, err = out.Write(content[start:])
	return err
}

// copyNew copies what is appended to file until ctx ends, which is how the user ends it and no error.
func copyNew(ctx context.Context, out io.Writer, file *os.File) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(out, file); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
