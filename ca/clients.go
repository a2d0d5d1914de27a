package ca

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/time/rate"

	"github.com/certanchor/certanchor/internal/httpsig"
	"github.com/certanchor/certanchor/internal/keyfile"
)

// How a client was authenticated.
const (
	howToken       = "token"
	howHMAC        = "hmac"
	howCertificate = "certificate"
)

// client is one line of the clients file, or the holder of a certificate of the organisation's MSP.
type client struct {
	name string // of a certificate: begins with certPrefix, which no name in the file does
	role Role
	how  string            // howToken, howHMAC or howCertificate
	hash [sha256.Size]byte // howToken: of the token
	key  []byte            // howHMAC
	rate *clientRate       // nil: as configured for all
}

// clientRate is what one client may send.
type clientRate struct {
	perSecond rate.Limit // rate.Inf: no limit
	burst     int
}

// clientList is who may use the API, as the clients file has it.
type clientList []client

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Parts of a line of the clients file.
const (
	hmacPrefix = "hmac:"
	ratePrefix = "rate="
	noRate     = "none"
	maxRate    = 1e6

	maxClientsFile = 4 << 20 // octets
	maxClientLine  = 1024
)

// parseClients reads lines "name role credential [rate=PER_SECOND/BURST]"; empty lines and lines that begin with # are skipped. A
// credential is the SHA-256 of a token, or hmac: and a key, in hexadecimal.
func parseClients(data []byte) (clientList, error) {
	var cs clientList
	seen := map[string]bool{}
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, maxClientLine)
	for n := 1; scan.Scan(); n++ {
		line := strings.TrimSpace(scan.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		c, err := parseClient(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if seen[c.name] {
			return nil, fmt.Errorf("line %d: name %q occurs twice", n, c.name)
		}
		seen[c.name] = true
		cs = append(cs, c)
	}
	return cs, scan.Err()
}

func parseClient(line string) (client, error) {
	f := strings.Fields(line)
	if len(f) != 3 && len(f) != 4 {
		return client{}, errors.New("must be: name role credential [rate=PER_SECOND/BURST]")
	}
	c := client{name: f[0], role: Role(f[1]), how: howToken}
	if !clientName.MatchString(c.name) {
		return client{}, fmt.Errorf("name %q: must be 1 to 64 letters, digits and . _ @ -", c.name)
	}
	if allowed[c.role] == nil {
		return client{}, fmt.Errorf("role %q: must be %s", f[1], Roles())
	}
	var err error
	if text, isKey := strings.CutPrefix(f[2], hmacPrefix); isKey {
		// The value stays out of errors: it is secret.
		c.how = howHMAC
		if c.key, err = hex.DecodeString(text); err == nil {
			err = httpsig.CheckKey(c.key)
		}
		if err != nil {
			return client{}, fmt.Errorf("HMAC key of %q: must be %d to %d octets in hexadecimal", c.name, httpsig.MinKey, httpsig.MaxKey)
		}
	} else {
		h, err := hex.DecodeString(f[2])
		if err != nil || len(h) != len(c.hash) {
			return client{}, fmt.Errorf("token hash %q: must be 64 hexadecimal digits", f[2])
		}
		copy(c.hash[:], h)
	}
	if len(f) == 4 {
		if c.rate, err = parseRate(f[3]); err != nil {
			return client{}, err
		}
	}
	return c, nil
}

// parseRate reads rate=PER_SECOND/BURST or rate=none.
func parseRate(text string) (*clientRate, error) {
	v, ok := strings.CutPrefix(text, ratePrefix)
	if ok && v == noRate {
		return &clientRate{perSecond: rate.Inf}, nil
	}
	a, b, cut := strings.Cut(v, "/")
	perSecond, err1 := strconv.ParseFloat(a, 64)
	burst, err2 := strconv.Atoi(b)
	if !ok || !cut || err1 != nil || err2 != nil || math.IsNaN(perSecond) || perSecond <= 0 || perSecond > maxRate || burst < 1 || burst > maxRate {
		return nil, fmt.Errorf("rate %q: must be rate=none, or rate=PER_SECOND/BURST with numbers up to %g", text, float64(maxRate))
	}
	return &clientRate{perSecond: rate.Limit(perSecond), burst: burst}, nil
}

func loadClients(path string) (clientList, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others write it, must be 0600", path, st.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxClientsFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxClientsFile {
		return nil, fmt.Errorf("%s: must have at most %d octets", path, maxClientsFile)
	}
	cs, err := parseClients(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range cs {
		if c.how == howHMAC && st.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("%s: mode %04o lets others read it, must be 0600: it holds the HMAC key of %q", path, st.Mode().Perm(), c.name)
		}
	}
	return cs, nil
}

// NewClient describes a client that is to use the API.
type NewClient struct {
	Name string
	Role Role
	HMAC bool   // it signs its requests; else it has a bearer token
	Key  []byte // for HMAC, 16 to 64 octets; default: 32 random ones
	Rate string // PER_SECOND/BURST or none; default: as configured for all clients
}

// AddClient makes a token of 256 random bits for a new client of the CA in dir, writes it to name.token (mode 0600) and
// returns that path. A running server knows the client a moment later. Errors: fs.ErrExist if the name is taken.
func AddClient(dir, name string, role Role) (tokenFile string, err error) {
	return MakeClient(dir, NewClient{Name: name, Role: role})
}

// MakeClient adds a client of the CA in dir and writes its secret to NAME.token, or to NAME.hmac in hexadecimal (mode 0600), whose path it
// returns. A running server knows the client a moment later. Errors: fs.ErrExist if the name is taken.
func MakeClient(dir string, n NewClient) (secretFile string, err error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(secret) // the secret file's
	credential := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	secretFile = filepath.Join(dir, n.Name+".token")
	if n.HMAC {
		if n.Key != nil {
			secret = n.Key
		}
		text = hex.EncodeToString(secret)
		credential, secretFile = hmacPrefix+text, filepath.Join(dir, n.Name+".hmac")
	}
	line := fmt.Sprintf("%s %s %s", n.Name, n.Role, credential)
	if n.Rate != "" {
		line += " " + ratePrefix + n.Rate
	}
	c, err := parseClient(line)
	if err != nil {
		return "", err
	}
	return secretFile, editClients(dir, func(file []byte, existing clientList) ([]byte, error) {
		if existing.find(c.name) != nil {
			return nil, fmt.Errorf("client %q: %w", c.name, fs.ErrExist)
		}
		// A file of that name is of nobody: its maker died before the client was on the list.
		if err := os.Remove(secretFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err := keyfile.WriteNew(secretFile, []byte(text+"\n"), 0o600); err != nil {
			return nil, err
		}
		if len(file) > 0 && file[len(file)-1] != '\n' {
			file = append(file, '\n')
		}
		return append(file, line+"\n"...), nil
	})
}

// RemoveClient takes a client of the CA in dir off the list, and removes the file with its secret if it is still there. A running server refuses the
// client a moment later. Errors: fs.ErrNotExist if there is no such client.
func RemoveClient(dir, name string) error {
	err := editClients(dir, func(text []byte, existing clientList) ([]byte, error) {
		if existing.find(name) == nil {
			return nil, fmt.Errorf("client %q: %w", name, fs.ErrNotExist)
		}
		var kept []byte
		for line := range bytes.Lines(text) {
			if f := bytes.Fields(line); len(f) == 0 || string(f[0]) != name {
				kept = append(kept, line...)
			}
		}
		return kept, nil
	})
	if err != nil {
		return err
	}
	for _, suffix := range []string{".token", ".hmac"} {
		if err := os.Remove(filepath.Join(dir, name+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// editClients replaces the clients file by what edit makes of it, one process at a time. A reader finds the old file or the new one.
func editClients(dir string, edit func(text []byte, existing clientList) ([]byte, error)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close() // and unlocks
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("couldn't lock %s: %w", dir, err)
	}
	path := filepath.Join(dir, clientsFile)
	existing, err := loadClients(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if text, err = edit(text, existing); err != nil {
		return err
	}
	return keyfile.Replace(path, text, 0o600)
}

// find returns the client of that name, or nil.
func (cs clientList) find(name string) *client {
	for i := range cs {
		if cs[i].name == name {
			return &cs[i]
		}
	}
	return nil
}
