package testnetwork

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hyperledger/fabric-admin-sdk/pkg/channel"
	"github.com/hyperledger/fabric-admin-sdk/pkg/identity"
	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

// program is the path of one of Fabric's programs.
func (n *Network) program(name string) string { return filepath.Join(n.state.FabricBin, name) }

// makeGenesisBlock writes the channel's first block from configtx.yaml and the MSP directories it names.
func (n *Network) makeGenesisBlock(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, n.program("configtxgen"),
		"-configPath", n.path("config"), "-profile", "Network", "-channelID", Channel, "-outputBlock", n.genesisBlock())
	cmd.Env = environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making the channel's first block: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// joinOrderer makes an organisation's orderer a member of the channel. One that is a member already is no error.
func (n *Network) joinOrderer(ctx context.Context, org int) error {
	block, err := os.ReadFile(n.genesisBlock())
	if err != nil {
		return err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("config-block", "config.block")
	if err != nil {
		return err
	}
	if _, err := part.Write(block); err != nil {
		return err
	}
	if err := form.Close(); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"https://"+n.address(org, portOrdererAdmin)+"/participation/v1/channels", &body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", form.FormDataContentType())
	client, err := n.httpClient(org)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: joining the channel: %w", NodeName(org, RoleOrderer), err)
	}
	defer response.Body.Close()
	// 405 is how an orderer says that it has the channel.
	if response.StatusCode != http.StatusCreated && response.StatusCode != http.StatusMethodNotAllowed {
		reason, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		return fmt.Errorf("%s: joining the channel: %s: %s", NodeName(org, RoleOrderer), response.Status, strings.TrimSpace(string(reason)))
	}
	return nil
}

// administration is an organisation's administrator connected to its peer.
type administration struct {
	conn *grpc.ClientConn
	id   identity.SigningIdentity
}

func (n *Network) administer(org int) (*administration, error) {
	cert, err := identity.ReadCertificate(n.user(org, Admin, "cert.pem"))
	if err != nil {
		return nil, err
	}
	key, err := identity.ReadPrivateKey(n.user(org, Admin, "key.pem"))
	if err != nil {
		return nil, err
	}
	id, err := identity.NewPrivateKeySigningIdentity(MSPID(org), cert, key)
	if err != nil {
		return nil, err
	}
	tls, err := n.tlsConfig(org)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(n.address(org, portPeer), grpc.WithTransportCredentials(credentials.NewTLS(tls)))
	if err != nil {
		return nil, err
	}
	return &administration{conn: conn, id: id}, nil
}

// joinPeer makes an organisation's peer a member of the channel.
func (n *Network) joinPeer(ctx context.Context, org int, admin *administration) error {
	content, err := os.ReadFile(n.genesisBlock())
	if err != nil {
		return err
	}
	var block common.Block
	if err := proto.Unmarshal(content, &block); err != nil {
		return fmt.Errorf("%s: %w", n.genesisBlock(), err)
	}
	if err := channel.JoinChannel(ctx, admin.conn, admin.id, &block); err != nil {
		return fmt.Errorf("%s: joining the channel: %w", NodeName(org, RolePeer), err)
	}
	return nil
}
