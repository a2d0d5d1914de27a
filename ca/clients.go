package ca

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/certanchor/certanchor/internal/keyfile"
	"github.com/certanchor/certanchor/internal/problem"
)

// Role says what a client of the HTTP API may do.
type Role string

// Roles.
const (
	RoleOperator      Role = "operator"      // the daily business: issue, change the status of certificates, import, enrol responders
	RoleAdministrator Role = "administrator" // the CA itself: keys, profiles, backups; no certificates
	RoleRevoker       Role = "revoker"       // change the status of certificates, and read
	RoleRequester     Role = "requester"     // issue and read
	RoleResponder     Role = "responder"     // get the certificate of a delegated OCSP responder
	RoleAuditor       Role = "auditor"       // read
)

// action is what a route needs.
type action int

const (
	actRead action = iota
	actIssue
	actRevoke
	actEnrol
	actDescribe
	actImport   // records of certificates that were issued elsewhere
	actExport   // backups, with or without keys
	actKeys     // states and rotation of keys
	actProfiles // what the CA issues
	actApprove  // operations under dual control
)

func (a action) String() string {
	return [...]string{"read certificates", "issue certificates", "change the status of certificates", "enrol OCSP responders", "see the CA's description",
		"import certificates", "export the CA's files", "change the state of keys", "change profiles", "approve operations"}[a]
}

var allowed = map[Role]map[action]bool{
	RoleOperator:      {actRead: true, actIssue: true, actRevoke: true, actEnrol: true, actDescribe: true, actImport: true, actApprove: true},
	RoleAdministrator: {actRead: true, actDescribe: true, actExport: true, actKeys: true, actProfiles: true, actApprove: true},
	RoleRevoker:       {actRead: true, actRevoke: true, actDescribe: true},
	RoleRequester:     {actRead: true, actIssue: true, actDescribe: true},
	RoleResponder:     {actEnrol: true, actDescribe: true},
	RoleAuditor:       {actRead: true, actDescribe: true},
}

// How a client was authenticated.
const (
	howToken       = "token"
	howHMAC        = "hmac"
	howCertificate = "certificate"
)

// client is one line of the clients file, or the holder of a certificate of the organisation's MSP.
type client struct {
	name string
	role Role
	how  string            // howToken, howHMAC or howCertificate
	hash [sha256.Size]byte // of the token
	key  []byte            // howHMAC
}

// clients is who may use the API.
type clients []client

// hmacKey returns the key of the HMAC client called name.
func (cs clients) hmacKey(name string) ([]byte, bool) {
	for _, c := range cs {
		if c.name == name && c.how == howHMAC {
			return c.key, true
		}
	}
	return nil, false
}

var clientName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// parseClients reads lines "name role sha256hex"; empty lines and lines that begin with # are skipped.
func parseClients(data []byte) (clients, error) {
	var cs clients
	seen := map[string]bool{}
	scan := bufio.NewScanner(bytes.NewReader(data))
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
	if len(f) != 3 {
		return client{}, errors.New("must be: name role sha256-of-token")
	}
	c := client{name: f[0], role: Role(f[1]), how: howToken}
	if !clientName.MatchString(c.name) {
		return client{}, fmt.Errorf("name %q: must be 1 to 64 letters, digits and . _ @ -", c.name)
	}
	if allowed[c.role] == nil {
		return client{}, fmt.Errorf("role %q: must be operator, administrator, revoker, requester, responder or auditor", f[1])
	}
	h, err := hex.DecodeString(f[2])
	if err != nil || len(h) != len(c.hash) {
		return client{}, fmt.Errorf("token hash %q: must be 64 hexadecimal digits", f[2])
	}
	copy(c.hash[:], h)
	return c, nil
}

func loadClients(path string) (clients, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others write it, must be 0600", path, st.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cs, err := parseClients(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cs, nil
}

// AddClient makes a token of 256 random bits for a new client of the CA in dir, writes it to name.token (mode 0600) and
// returns that path. A running server knows the client after its next start. Errors: fs.ErrExist if the name is taken.
func AddClient(dir, name string, role Role) (tokenFile string, err error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	c, err := parseClient(fmt.Sprintf("%s %s %x", name, role, sha256.Sum256([]byte(token))))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, clientsFile)
	existing, err := loadClients(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for _, e := range existing {
		if e.name == name {
			return "", fmt.Errorf("client %q: %w", name, fs.ErrExist)
		}
	}
	tokenFile = filepath.Join(dir, name+".token")
	if err := keyfile.WriteNew(tokenFile, []byte(token+"\n"), 0o600); err != nil {
		return "", err
	}
	return tokenFile, appendClient(path, c)
}

func appendClient(path string, c client) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s %x\n", c.name, c.role, c.hash)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), keyfile.SyncDir(filepath.Dir(path)))
}

// authenticate finds the client of a request by its bearer token (RFC 6750 section 2.1). Every hash is compared, in constant
// time, so that the time taken tells nothing about any of them.
func (cs clients) authenticate(r *http.Request) (*client, error) {
	if id := identified(r); id != nil {
		return id.client, id.err
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return nil, problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, "Authorization", "", "must be Bearer and a token of this CA's clients")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *client
	for i := range cs {
		if subtle.ConstantTimeCompare(hash[:], cs[i].hash[:]) == 1 {
			found = &cs[i]
		}
	}
	if found == nil {
		return nil, problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, "Authorization", "Bearer", "the token is not one of this CA's clients")
	}
	return found, nil
}
