package conformance

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/ocspwire"
)

// nginxConf is a TLS server. What is stapled comes from the responder that the certificate names, or from a file.
const nginxConf = `daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log info;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body; proxy_temp_path %[1]s/nginx-proxy; fastcgi_temp_path %[1]s/nginx-fastcgi;
  uwsgi_temp_path %[1]s/nginx-uwsgi; scgi_temp_path %[1]s/nginx-scgi;
  ssl_trusted_certificate %[2]s;
%[3]s}
`

const nginxServer = `  server {
    listen %s ssl;
    ssl_certificate %s;
    ssl_certificate_key %s;
    ssl_stapling on;
    %s
    location / { return 200 "stapled\n"; }
  }
`

// site is a TLS server of nginx.
type site struct {
	*cert
	address string
	staple  string // directive
}

// stapling has nginx ask the bridge and staple what it answers, and TLS clients insist on it.
func (tb *table) stapling(w *world) {
	tb.section("Stapling", "nginx asks the responder that its certificate names (`ssl_stapling on; ssl_stapling_verify on`) and staples the answer. TLS clients judge that.", "Client", "Must say", "Says")
	fetched := w.site("stapled.test", "ssl_stapling_verify on;")
	gone := w.site("stapled-revoked.test", "")
	w.revoke(gone.cert, "keyCompromise", noTime)
	answer, err := w.get(w.main, asker{w, w.main}.about("", revoked("keyCompromise"), gone.cert).der)
	w.must(err)
	if status, _, err := ocspwire.ParseResponse(answer.body); err != nil || status != ocspwire.Successful {
		w.t.Fatalf("%v, %v", status, err)
	}
	gone.staple = "ssl_stapling_file " + w.write("revoked.ocsp", answer.body) + ";"
	silent := w.site("silent.test", "ssl_stapling_verify on;")
	w.revoke(silent.cert, "superseded", noTime)
	w.nginx(fetched, gone, silent)

	// nginx asks at the first handshake, and staples from the one after the answer on.
	var last string
	w.until("nginx staples", func() error {
		out, err := w.curl(fetched)
		last = out
		return err
	})
	tb.row("curl --cert-status", "status good, page served", contains(last, "stapled"))
	out, err := w.run("openssl", "s_client", "-connect", fetched.address, "-servername", fetched.DNSNames[0], "-CAfile", w.caFile, "-status", "-verify_return_error")
	tb.row("openssl s_client -status", "good", firstError(err, contains(out, "OCSP Response Status: successful"), contains(out, "Cert Status: good"), contains(out, "Verify return code: 0 (ok)")))
	host, port, err := net.SplitHostPort(fetched.address)
	w.must(err)
	out, err = w.run("gnutls-cli", "--x509cafile", w.caFile, "--ocsp", "--sni-hostname", fetched.DNSNames[0], "--verify-hostname", fetched.DNSNames[0], "-p", port, host)
	tb.row("gnutls-cli", "trusted, with OCSP status", firstError(err, contains(out, "OCSP status request"), contains(out, "The certificate is trusted")))
	out, err = w.curl(gone)
	tb.row("curl --cert-status, the answer of a revoked certificate stapled from a file", "refused: revoked", refusedWith(out, err, "revocation reason: keyCompromise"))
	// The first handshake never has a status; nginx has to have heard that it is none to staple.
	w.until("nginx has seen that the certificate is revoked", func() error {
		_, err := w.curl(silent)
		if err == nil {
			return nil
		}
		return contains(string(w.read("nginx.log")), `certificate status "revoked" in the OCSP response`)
	})
	out, err = w.curl(silent)
	tb.row("curl --cert-status, revoked certificate: nginx staples only what is good", "refused: no status", refusedWith(out, err, "No OCSP response received"))
}

func (w *world) site(name, staple string) *site {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	defer l.Close()
	return &site{cert: w.issue(name, "server"), address: l.Addr().String(), staple: staple}
}

// nginx runs until the test ends.
func (w *world) nginx(sites ...*site) {
	w.t.Helper()
	var servers strings.Builder
	for _, s := range sites {
		key := w.write(s.DNSNames[0]+".key", keyPEM(w, s.key))
		// With its issuer: curl finds that only in what the server sends.
		chain := w.write(s.DNSNames[0]+"-chain.pem", append(toPEM("CERTIFICATE", s.Raw), toPEM("CERTIFICATE", w.ca.Raw)...))
		fmt.Fprintf(&servers, nginxServer, s.address, chain, key, s.staple)
	}
	conf := w.write("nginx.conf", fmt.Appendf(nil, nginxConf, w.dir, w.caFile, servers.String()))
	cmd := exec.Command("nginx", "-p", w.dir, "-e", w.path("nginx.log"), "-c", conf)
	w.must(cmd.Start())
	w.t.Cleanup(func() {
		w.check(cmd.Process.Signal(syscall.SIGTERM))
		w.check(cmd.Wait())
	})
	for _, s := range sites {
		w.until("nginx listens", func() error {
			conn, err := net.DialTimeout("tcp", s.address, time.Second)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	}
}

func (w *world) curl(s *site) (string, error) {
	name := s.DNSNames[0]
	_, port, err := net.SplitHostPort(s.address)
	w.must(err)
	return w.run("curl", "-sS", "--cert-status", "--cacert", w.caFile, "--resolve", name+":"+port+":127.0.0.1", "https://"+name+":"+port+"/")
}

func contains(out, want string) error {
	if !strings.Contains(out, want) {
		return fmt.Errorf("%q is not in: %s", want, lastLines(out))
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func refusedWith(out string, err error, why string) error {
	if err == nil {
		return fmt.Errorf("accepted: %s", lastLines(out))
	}
	return contains(out, why)
}
