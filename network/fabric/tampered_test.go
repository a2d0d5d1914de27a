package fabric_test

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"strings"

	"github.com/certanchor/certanchor/chaincode"
	ccfabric "github.com/certanchor/certanchor/chaincode/fabric"
)

// tamperedChaincode is the argument that makes this test binary an organisation's chaincode server that lies.
const tamperedChaincode = "tampered-chaincode"

func init() {
	if len(os.Args) < 2 || os.Args[1] != tamperedChaincode {
		return
	}
	if err := serveTampered(os.Args[4:]); err != nil { // after "chaincode serve"
		slog.Error("tampered chaincode", "error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveTampered is certanchor chaincode serve with a contract that changes everything it writes.
func serveTampered(args []string) error {
	var cfg ccfabric.ServerConfig
	flags := flag.NewFlagSet(tamperedChaincode, flag.ContinueOnError)
	flags.StringVar(&cfg.Address, "address", "", "")
	flags.StringVar(&cfg.PackageID, "package-id", "", "")
	tlsCert, tlsKey, clientCA := flags.String("tls-cert", "", ""), flags.String("tls-key", "", ""), flags.String("client-ca", "", "")
	consortium, tick := flags.String("consortium", "", ""), flags.Duration("tick-interval", 0, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	contract, err := chaincode.New(chaincode.Config{MSPs: strings.Split(*consortium, ","), TickInterval: *tick})
	if err != nil {
		return err
	}
	cfg.Executor, cfg.Log = tampered{contract}, slog.Default()
	for _, f := range []struct {
		path    string
		content *[]byte
	}{{*tlsCert, &cfg.TLSCert}, {*tlsKey, &cfg.TLSKey}, {*clientCA, &cfg.ClientCA}} {
		if *f.content, err = os.ReadFile(f.path); err != nil {
			return err
		}
	}
	return ccfabric.Serve(context.Background(), cfg)
}

type tampered struct{ *chaincode.Contract }

func (c tampered) Invoke(st chaincode.State, tx chaincode.Tx, function string, arg []byte) ([]byte, error) {
	return c.Contract.Invoke(tamperedState{st}, tx, function, arg)
}

type tamperedState struct{ chaincode.State }

func (s tamperedState) Put(key string, value []byte) error {
	return s.State.Put(key, append(value, 0))
}
