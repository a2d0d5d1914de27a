package node

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/certanchor/certanchor/internal/config"
	"github.com/certanchor/certanchor/internal/httpserve"
)

// caOptions are how the CA's API is served. With operators' certificates, the CA verifies what the handshake brings: against the MSP as it is now.
func caOptions(section *config.CA) httpserve.Options {
	return httpserve.Options{TLS: section.TLS, AskCertificate: section.Operators != nil}
}

// reloadOnHangup calls reload at each SIGHUP until stop is called.
func reloadOnHangup(reload func()) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-hangups:
				reload()
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(ended)
	}
}
