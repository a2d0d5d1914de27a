package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	testnetwork "github.com/certanchor/certanchor/test-network"
)

func newNetworkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "run a real Hyperledger Fabric network on this machine",
		Long: `network runs a Hyperledger Fabric network as native processes on this machine: for each organisation a peer, an orderer
and a chaincode server. Fabric is built from its pinned source on first use; that needs the go command and takes a minute or two.

Keys, ledgers, logs and process ids are in one directory (--dir), so that every command finds the network again. Nodes are
named after organisation and role: org1.peer, org1.orderer, org1.chaincode, org2.peer, ...`,
		Example: `  certanchor network up
  certanchor network status
  certanchor network freeze org2.peer
  certanchor network down --purge`,
		Args: noArgs,
	}
	var dir string
	cmd.PersistentFlags().StringVar(&dir, "dir", defaultNetworkDir(), "directory the network is kept in")
	cmd.AddCommand(newNetworkUpCommand(&dir), newNetworkStatusCommand(&dir), newNetworkLogsCommand(&dir))
	cmd.AddCommand(newNodeCommands(&dir)...)
	cmd.AddCommand(newNetworkDownCommand(&dir))
	return cmd
}

// defaultNetworkDir follows the XDG base directory specification; without a home directory it is relative to the current one.
func defaultNetworkDir() string {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "certanchor", "network")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "certanchor", "network")
	}
	return "certanchor-network"
}

func newNetworkUpCommand(dir *string) *cobra.Command {
	var options testnetwork.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "make a network, or start the one that is there, and wait until it commits transactions",
		Long: `up makes a network: keys, configuration, nodes, channel, chaincode. It returns when a transaction has committed on every
peer. If the directory holds a network that was taken down, up starts that one with its data; the flags then need not be
repeated and must not differ.

If up fails or is interrupted, it leaves no process behind.`,
		Example: `  certanchor network up
  certanchor network up --orgs 1 --consensus raft
  certanchor network up --dir second --base-port 18050   # a second network beside the first`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Dir = *dir
			options.Progress = cmd.ErrOrStderr()
			askedOnly(cmd, &options)
			n, err := testnetwork.Up(cmd.Context(), options)
			if err != nil {
				return err
			}
			return printStatus(cmd, n, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Orgs, "orgs", testnetwork.DefaultOrgs, fmt.Sprintf("number of organisations, 1 to %d; bft survives a bad orderer from 4 on", testnetwork.MaxOrgs))
	flags.StringVar(&options.Consensus, "consensus", testnetwork.BFT, "how orderers agree: bft or raft")
	flags.IntVar(&options.BasePort, "base-port", testnetwork.DefaultBasePort, "first port, ten are set aside for each organisation; 0 picks a free block")
	flags.DurationVar(&options.TickInterval, "tick-interval", testnetwork.DefaultTickInterval, "how far apart bridges tick the ledger's clock")
	flags.BoolVar(&asJSON, "json", false, "print the network's status as JSON")
	return cmd
}

// askedOnly leaves out what the user did not ask for: an existing network decides it then.
func askedOnly(cmd *cobra.Command, options *testnetwork.Options) {
	if !cmd.Flags().Changed("orgs") {
		options.Orgs = 0
	}
	if !cmd.Flags().Changed("consensus") {
		options.Consensus = ""
	}
	if !cmd.Flags().Changed("tick-interval") {
		options.TickInterval = 0
	}
	switch {
	case !cmd.Flags().Changed("base-port"):
		options.BasePort = 0
	case options.BasePort == 0:
		options.BasePort = testnetwork.AnyPort
	}
}

func newNetworkDownCommand(dir *string) *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "stop all nodes",
		Long:  "down stops all nodes, frozen ones too, and returns when they are gone. Data, keys and logs stay unless --purge is given.",
		Example: `  certanchor network down
  certanchor network down --purge`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := testnetwork.Open(*dir)
			if err != nil {
				return err
			}
			if purge {
				return n.Purge(cmd.Context())
			}
			return n.Down(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the directory too")
	return cmd
}

// newNodeCommands are the commands that do one thing to the nodes they are given.
func newNodeCommands(dir *string) []*cobra.Command {
	type act = func(*testnetwork.Network, context.Context, string) error
	var commands []*cobra.Command
	for _, c := range []struct {
		name, short, long string
		act               act
	}{
		{"stop", "stop nodes in good order", "Each node is asked to end (SIGTERM), and killed after five seconds.", (*testnetwork.Network).Stop},
		{"kill", "kill nodes (SIGKILL)", "Each node ends at once, as in a crash.", (*testnetwork.Network).Kill},
		{"freeze", "suspend nodes (SIGSTOP)", "Each node keeps its ports and connections and answers nothing until it is thawed.", (*testnetwork.Network).Freeze},
		{"thaw", "let frozen nodes go on (SIGCONT)", "Each node goes on where it was frozen.", (*testnetwork.Network).Thaw},
		{"start", "start nodes that do not run", "The command returns when the nodes answer.", (*testnetwork.Network).Start},
		{"restart", "stop nodes and start them again", "The command returns when the nodes answer again.", (*testnetwork.Network).Restart},
	} {
		commands = append(commands, &cobra.Command{
			Use:               c.name + " NODE...",
			Short:             c.short,
			Long:              c.name + ": " + c.short + ". " + c.long,
			Example:           "  certanchor network " + c.name + " org1.peer\n  certanchor network " + c.name + " org2.orderer org2.chaincode",
			Args:              nodeArgs,
			ValidArgsFunction: completeNodes(dir),
			RunE: func(cmd *cobra.Command, nodes []string) error {
				n, err := testnetwork.Open(*dir)
				if err != nil {
					return err
				}
				for _, node := range nodes {
					if err := c.act(n, cmd.Context(), node); err != nil {
						return err
					}
				}
				return nil
			},
		})
	}
	return commands
}

func nodeArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: %s takes the name of at least one node, for example org1.peer", errUsage, cmd.CommandPath())
	}
	return nil
}

// completeNodes offers the network's nodes to the shell.
func completeNodes(dir *string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		n, err := testnetwork.Open(*dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return n.Nodes(), cobra.ShellCompDirectiveNoFileComp
	}
}
