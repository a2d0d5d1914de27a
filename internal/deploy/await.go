package deploy

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/certanchor/certanchor/client"
)

// askEvery paces questions to a responder that does not say yet what is awaited.
const askEvery = time.Millisecond

// AwaitStatus asks until the responder gives the status, or ctx ends; the error then says what it gave last.
func AwaitStatus(ctx context.Context, c *client.Client, cert, issuer *x509.Certificate, want client.Status) (*client.Answer, error) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		answer, err := c.Status(ctx, cert, issuer)
		if err == nil && answer.Status == want {
			return answer, nil
		}
		if err == nil {
			err = fmt.Errorf("the answer is %s", answer.Status)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("OCSP at %s does not say %s: %w", c.OCSPURL, want, err)
		case <-tick.C:
		}
	}
}
