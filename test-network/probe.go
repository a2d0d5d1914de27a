package testnetwork

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// probe returns nil when the node answers on every port that others use.
func (n *Network) probe(ctx context.Context, node string) error {
	org, role, err := n.parse(node)
	if err != nil {
		return err
	}
	switch role {
	case RolePeer:
		return n.probeServer(ctx, org, portPeer, portPeerOperations)
	case RoleOrderer:
		if err := n.handshake(ctx, org, portOrdererAdmin); err != nil {
			return err
		}
		return n.probeServer(ctx, org, portOrderer, portOrdererOperations)
	default:
		return n.handshake(ctx, org, portChaincode)
	}
}

func (n *Network) probeServer(ctx context.Context, org, server, operations int) error {
	if err := n.handshake(ctx, org, server); err != nil {
		return err
	}
	body, err := n.get(ctx, org, operations, "/healthz")
	if err != nil {
		return err
	}
	return body.Close()
}

// handshake opens and closes a TLS connection.
func (n *Network) handshake(ctx context.Context, org, port int) error {
	config, err := n.tlsConfig(org)
	if err != nil {
		return err
	}
	config.NextProtos = []string{"h2"} // gRPC servers insist
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", n.address(org, port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// tlsConfig is that of the organisation's administrator towards its own nodes.
func (n *Network) tlsConfig(org int) (*tls.Config, error) {
	ca, err := os.ReadFile(n.tlsCA(org))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s: no certificate in it", n.tlsCA(org))
	}
	own, err := tls.LoadX509KeyPair(n.user(org, Admin, "tls-cert.pem"), n.user(org, Admin, "tls-key.pem"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, ServerName: loopback, MinVersion: tls.VersionTLS12}, nil
}

// httpClient is for one request: a connection kept open to a node that freezes would only mislead the next.
func (n *Network) httpClient(org int) (*http.Client, error) {
	config, err := n.tlsConfig(org)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext,
	}}, nil
}

// get asks a node's HTTP port and returns the body of a successful answer.
func (n *Network) get(ctx context.Context, org, port int, path string) (io.ReadCloser, error) {
	client, err := n.httpClient(org)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+n.address(org, port)+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		reason, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		return nil, fmt.Errorf("%s answers %s: %s", request.URL, response.Status, strings.TrimSpace(string(reason)))
	}
	return response.Body, nil
}

// Metrics a node publishes, by the names Fabric gives them.
const (
	metricHeight      = "ledger_blockchain_height"
	metricBFTLeader   = "consensus_BFT_leader_id"
	metricRaftLeading = "consensus_etcdraft_is_leader"
)

// metrics asks a peer or an orderer for the channel's metrics; one that the node does not have is absent.
func (n *Network) metrics(ctx context.Context, org, port int) (map[string]uint64, error) {
	body, err := n.get(ctx, org, port, "/metrics")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return parseMetrics(body)
}

// parseMetrics reads the few metrics this package uses from Prometheus's text format.
func parseMetrics(r io.Reader) (map[string]uint64, error) {
	values := make(map[string]uint64)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), `{channel="`+Channel+`"} `)
		if !found || (name != metricHeight && name != metricBFTLeader && name != metricRaftLeading) {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil || number < 0 {
			return nil, fmt.Errorf("metric %s: value %q", name, value)
		}
		values[name] = uint64(number)
	}
	return values, lines.Err()
}
