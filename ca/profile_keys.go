package ca

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Keys of a profile that cfssl's format does not have.
const (
	keyMirrors  = "crl_mirrors"
	keyShards   = "crl_shards"
	keyAnchor   = "anchoring"
	keySCTs     = "scts"
	keyKeys     = "allowed_keys"
	keyWildcard = "wildcards"
	keyPrivate  = "private_names"
	keyIPs      = "ip_addresses"
	keyMaxNames = "max_names"
	keyNewKey   = "new_key" // cfssl's newcert may make the private key here; absent: it may not
)

// ownKeys is what a profile says in them; nil: nothing.
type ownKeys struct {
	mirrors   []string
	shards    *int
	anchoring *string
	scts      *int
	keys      []string
	wildcards *bool
	private   *bool
	ips       *bool
	maxNames  *int
	newKey    *bool
}

// fields lists the keys, where their values go, and what these must be.
func (k *ownKeys) fields() []ownField {
	return []ownField{
		{keyMirrors, &k.mirrors, "must be a list of URLs"},
		{keyShards, &k.shards, fmt.Sprintf("must be a number of 0 to %d", maxShards)},
		{keyAnchor, &k.anchoring, "must be " + anchorDirect + " or " + anchorCT},
		{keySCTs, &k.scts, fmt.Sprintf("must be a number of 1 to %d", maxSCTs)},
		{keyKeys, &k.keys, "must be a list of " + keyNames},
		{keyWildcard, &k.wildcards, "must be true or false"},
		{keyPrivate, &k.private, "must be true or false"},
		{keyIPs, &k.ips, "must be true or false"},
		{keyMaxNames, &k.maxNames, fmt.Sprintf("must be a number of 1 to %d", mostNames)},
		{keyNewKey, &k.newKey, "must be true or false"},
	}
}

type ownField struct {
	key   string
	value any
	rule  string
}

// or takes what the default says about rules that k leaves out. The distribution point is inherited as a whole: see newProfiles.
func (k ownKeys) or(d ownKeys) ownKeys {
	if k.anchoring == nil && k.scts == nil {
		k.anchoring, k.scts = d.anchoring, d.scts
	}
	if k.keys == nil {
		k.keys = d.keys
	}
	k.wildcards, k.private, k.ips = first(k.wildcards, d.wildcards), first(k.private, d.private), first(k.ips, d.ips)
	k.maxNames = first(k.maxNames, d.maxNames)
	return k
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// takeOwnKeys takes the keys out of a profiles file that cfssl does not know. What cannot be read as profiles is left as it is, for
// cfssl's reader to refuse. byProfile has the default's under "".
func takeOwnKeys(data []byte) (rest []byte, byProfile map[string]ownKeys, err error) {
	var doc, signing, named map[string]json.RawMessage
	if json.Unmarshal(data, &doc) != nil || json.Unmarshal(doc["signing"], &signing) != nil {
		return data, nil, nil
	}
	byProfile = map[string]ownKeys{}
	take := func(key, name string, raw json.RawMessage) (json.RawMessage, error) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil {
			return raw, nil
		}
		k, found, err := readOwnKeys(key, fields)
		if err != nil || !found {
			return raw, err
		}
		byProfile[name] = k
		return json.Marshal(fields)
	}
	if raw := signing["default"]; raw != nil {
		if signing["default"], err = take("signing.default", "", raw); err != nil {
			return nil, nil, err
		}
	}
	if json.Unmarshal(signing["profiles"], &named) == nil && named != nil {
		for _, name := range slices.Sorted(maps.Keys(named)) {
			if named[name], err = take("signing.profiles."+name, name, named[name]); err != nil {
				return nil, nil, err
			}
		}
		if signing["profiles"], err = json.Marshal(named); err != nil {
			return nil, nil, err
		}
	}
	if len(byProfile) == 0 {
		return data, nil, nil // as it was written, for cfssl's messages
	}
	if doc["signing"], err = json.Marshal(signing); err != nil {
		return nil, nil, err
	}
	rest, err = json.Marshal(doc)
	return rest, byProfile, err
}

// readOwnKeys takes them out of a profile's fields.
func readOwnKeys(key string, fields map[string]json.RawMessage) (k ownKeys, found bool, err error) {
	for _, f := range k.fields() {
		raw, ok := fields[f.key]
		if !ok {
			continue
		}
		// A null is nobody's wish: it would mean the key was never there.
		if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) || json.Unmarshal(raw, f.value) != nil {
			return k, false, fmt.Errorf("%s.%s %s: %s", key, f.key, raw, f.rule)
		}
		delete(fields, f.key)
		found = true
	}
	return k, found, nil
}

// inherited is what a profile says, or the default for it. The responder's profile stands alone.
func inherited(name string, keys map[string]ownKeys) ownKeys {
	if name == ResponderProfile {
		return keys[name]
	}
	return keys[name].or(keys[""])
}
