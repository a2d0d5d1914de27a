package demo

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/certanchor/certanchor/internal/deploy"
)

// opensslRevoked is what openssl verify says about a certificate that a CRL lists.
const opensslRevoked = "certificate revoked"

// crlLists waits until openssl, with the CRL that the asked organisation serves for the certificate, says that it is revoked. The CA
// operated by another organisation signs that CRL; the asked one serves it because it says what its own ledger says.
func (s *story) crlLists(ctx context.Context, c *sample) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var file string
	err := deploy.Poll(ctx, func() (err error) {
		if file, err = s.fetchCRL(ctx, c); err != nil {
			return err
		}
		out, err := s.checkWith(ctx, file, c)
		if err == nil || !strings.Contains(out, opensslRevoked) {
			return fmt.Errorf("openssl does not say that the certificate is revoked:\n%s", out)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return opensslRevoked + ", by " + filepath.Base(file), nil
}

// crlPasses checks the same way that a certificate is not revoked.
func (s *story) crlPasses(ctx context.Context, c *sample) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var file string
	err := deploy.Poll(ctx, func() (err error) {
		if file, err = s.fetchCRL(ctx, c); err == nil {
			_, err = s.checkWith(ctx, file, c)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return "OK, by " + filepath.Base(file), nil
}

func (s *story) checkWith(ctx context.Context, crlFile string, c *sample) (string, error) {
	return openssl(ctx, "verify", "-x509_strict", "-crl_check", "-CAfile", s.d.CACertFile(), "-CRLfile", crlFile, c.certFile)
}

// fetchCRL gets the CRL that a certificate names from the asked organisation, and returns the file that it is in.
func (s *story) fetchCRL(ctx context.Context, c *sample) (string, error) {
	if len(c.cert.CRLDistributionPoints) == 0 {
		return "", fmt.Errorf("the certificate %s names no CRL", c.name)
	}
	name := path.Base(c.cert.CRLDistributionPoints[0])
	url := s.asked.URL + "/crl/" + s.d.CAID().String() + "/" + name
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	der, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s\n%s", url, resp.Status, der)
	}
	file := filepath.Join(s.dir, strings.TrimSuffix(name, ".crl")+".crl.pem")
	return file, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o644)
}
