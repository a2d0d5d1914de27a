package ca

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cloudflare/cfssl/config"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// defaultProfile is the name under which signing.default is a profile, when it says enough to be one.
const defaultProfile = "default"

// Limits of a key in auth_keys, in octets. The examples in cfssl's documentation have 16.
const (
	minAuthKey = 16
	maxAuthKey = 1024
)

// cfsslProfiles is what profiles.json says about cfssl's API.
type cfsslProfiles struct {
	authKeys map[string][]byte // by name in auth_keys
	newKey   map[string]bool   // by profile
}

// checkConfig finds what cfssl's own reader would refuse without saying where, and the sections of a configuration that are about other
// programs than a CA's server.
func checkConfig(cfg *config.Config) (*cfsslProfiles, error) {
	switch {
	case cfg.OCSP != nil:
		return nil, errors.New("ocsp: must not be set: OCSP bridges answer for this CA, from the ledger; docs/ocsp.md")
	case len(cfg.Remotes) > 0:
		name := slices.Min(slices.Collect(maps.Keys(cfg.Remotes)))
		return nil, fmt.Errorf("remotes.%s %q: must not be set: this CA signs with its own key. remotes and auth_remote belong into its clients' configuration", name, cfg.Remotes[name])
	}
	own := &cfsslProfiles{authKeys: map[string][]byte{}, newKey: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(cfg.AuthKeys)) {
		key, err := authKey("auth_keys."+name, cfg.AuthKeys[name])
		if err != nil {
			return nil, err
		}
		own.authKeys[name] = key
	}
	if cfg.Signing == nil { // of null, cfssl's reader dies
		return nil, errors.New("signing: must be set, with profiles")
	}
	if p := cfg.Signing.Default; p != nil {
		if err := own.checkProfile("signing.default", p); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Signing.Profiles)) {
		p := cfg.Signing.Profiles[name]
		if p == nil {
			return nil, fmt.Errorf("signing.profiles.%s null: must be a profile", name)
		}
		if err := own.checkProfile("signing.profiles."+name, p); err != nil {
			return nil, err
		}
	}
	return own, nil
}

func (o *cfsslProfiles) checkProfile(key string, p *config.SigningProfile) error {
	if p.RemoteName != "" || p.AuthRemote != (config.AuthRemote{}) {
		return fmt.Errorf("%s.remote %q: must not be set, nor auth_remote: this CA signs with its own key", key, p.RemoteName+p.AuthRemote.RemoteName)
	}
	for field, name := range map[string]string{"auth_key": p.AuthKeyName, "prev_auth_key": p.PrevAuthKeyName} {
		if _, ok := o.authKeys[name]; name != "" && !ok {
			return fmt.Errorf("%s.%s %q: must be the name of a key in auth_keys", key, field, name)
		}
	}
	return nil
}

// authKey reads a key as cfssl does: hexadecimal, or where that is, env:NAME or file:PATH. Unlike cfssl it does not take an empty key,
// which a variable that is not set would be, nor a short one.
func authKey(field string, k config.AuthKey) ([]byte, error) {
	if k.Type != "standard" {
		return nil, fmt.Errorf("%s.type %q: must be standard", field, k.Type)
	}
	text, from := k.Key, "its value" // which no message repeats
	if kind, where, ok := strings.Cut(k.Key, ":"); ok {
		from = k.Key
		switch kind {
		case "env":
			text = os.Getenv(where)
		case "file":
			data, err := os.ReadFile(where)
			if err != nil {
				return nil, fmt.Errorf("%s.key %q: %w", field, k.Key, err)
			}
			text = strings.TrimSpace(string(data))
		default:
			return nil, fmt.Errorf("%s.key %q: must be hexadecimal digits, env:NAME or file:PATH", field, kind+":")
		}
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) < minAuthKey || len(key) > maxAuthKey {
		return nil, fmt.Errorf("%s.key (%s): must be %d to %d hexadecimal digits, an even number of them; `openssl rand -hex 32` makes 64", field, from, 2*minAuthKey, 2*maxAuthKey)
	}
	return key, nil
}

// adoptDefault makes a profile of signing.default, for requests that name none, as cfssl has it. Unlike with cfssl it is one only when
// it says what its certificates are for and what of a request it takes over.
func adoptDefault(s *config.Signing, keys map[string]ownKeys) {
	if s.Default == nil || len(s.Default.Usage) == 0 || s.Default.CSRWhitelist == nil || s.Profiles[defaultProfile] != nil {
		return
	}
	s.Profiles[defaultProfile] = s.Default
	if k, ok := keys[""]; ok {
		keys[defaultProfile] = k
	}
}

// allowNewKeys notes the profiles that say new_key. No profile takes it from the default one.
func (o *cfsslProfiles) allowNewKeys(keys map[string]ownKeys) {
	for name, k := range keys {
		o.newKey[name] = k.newKey != nil && *k.newKey
	}
}

// maySeeKeys keeps profiles that have keys of clients in them from those who only read: env: and file: keep the keys themselves elsewhere.
func maySeeKeys(c *client, profiles []byte) error {
	if allowed[c.role][actApprove] {
		return nil
	}
	var doc struct {
		AuthKeys map[string]config.AuthKey `json:"auth_keys"`
	}
	if json.Unmarshal(profiles, &doc) != nil {
		return nil // no profiles, or ones that nobody can use
	}
	for name, k := range doc.AuthKeys {
		if !strings.Contains(k.Key, ":") {
			return wire.Errorf(wire.PermissionDenied, "role", string(c.role), "must be a role that may %s: auth_keys.%s has its key in the profiles", actApprove, name)
		}
	}
	return nil
}
