package cabackup

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
)

// LeftOutKey stands in profiles.json in the place of a key that the backup has not, or not in clear. It is no key: the CA does not start with it.
const LeftOutKey = "left out of the backup"

const (
	profilesName   = "profiles.json"
	payloadSuffix  = ".payload" // of an operation under dual control: profiles, among others
	authKeysMember = "auth_keys"
)

// inlineKey is the value of a key in auth_keys that is none of env:NAME and file:PATH: the key itself.
type inlineKey struct {
	name, value string
	from, to    int // octets of the value in the text, quotes included
}

// inlineKeys finds the keys of clients in a cfssl configuration. Names are compared as encoding/json does, and a name that is there twice is looked at twice:
// whatever a reader makes of the text, no key stays in it. ok: it is one JSON object.
func inlineKeys(text []byte) (keys []inlineKey, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	err := walkObject(dec, nil, func(path []string, value string, to int) {
		if len(path) != 3 || !strings.EqualFold(path[0], authKeysMember) || !strings.EqualFold(path[2], "key") || strings.HasPrefix(value, "env:") || strings.HasPrefix(value, "file:") {
			return
		}
		keys = append(keys, inlineKey{name: path[1], value: value, from: startOfString(text, to), to: to})
	})
	if err != nil {
		return nil, false
	}
	_, err = dec.Token()
	return keys, errors.Is(err, io.EOF)
}

// walkObject calls fn for each string that is a member of an object, with the names that lead there and where it ends in the text. The object's brace is read.
func walkObject(dec *json.Decoder, path []string, fn func(path []string, value string, to int)) error {
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string) // between braces, the decoder takes nothing else
		if err := walkValue(dec, append(slices.Clip(path), name), fn); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func walkValue(dec *json.Decoder, path []string, fn func(path []string, value string, to int)) error {
	if len(path) > 3 { // deeper is no key
		var skipped json.RawMessage
		return dec.Decode(&skipped)
	}
	t, err := dec.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case string:
		fn(path, t, int(dec.InputOffset()))
	case json.Delim:
		if t == '{' {
			return walkObject(dec, path, fn)
		}
		for dec.More() {
			var skipped json.RawMessage
			if err := dec.Decode(&skipped); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	return err
}

// startOfString is where the JSON string that ends before to begins.
func startOfString(text []byte, to int) int {
	for i := to - 2; i >= 0; i-- {
		if text[i] != '"' {
			continue
		}
		escapes := 0
		for j := i - 1; j >= 0 && text[j] == '\\'; j-- {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
	}
	return 0
}

// publicProfiles is a text without the keys of clients in it, and their names; otherwise as it was, so that with the keys in their places it is what was
// approved under dual control. nil: it cannot be told what is a key.
func publicProfiles(name string, text []byte) (public []byte, names []string) {
	keys, ok := inlineKeys(text)
	if !ok {
		broken := name == profilesName || strings.HasSuffix(name, payloadSuffix) && bytes.HasPrefix(bytes.TrimSpace(text), []byte("{"))
		if broken {
			return nil, nil
		}
		return text, nil
	}
	public = []byte{}
	at := 0
	for _, k := range keys {
		if k.value == LeftOutKey {
			continue
		}
		names = append(names, authKeysMember+"."+k.name)
		public = append(append(public, text[at:k.from]...), `"`+LeftOutKey+`"`...)
		at = k.to
	}
	public = append(public, text[at:]...)
	if len(names) > 0 && strings.HasSuffix(name, payloadSuffix) {
		return nil, names // of no use changed: a digest names it
	}
	return public, names
}

// MissingKeys are the names of the keys in profiles that a backup left out and that were not put in again.
func MissingKeys(profiles []byte) (names []string) {
	keys, _ := inlineKeys(profiles)
	for _, k := range keys {
		if k.value == LeftOutKey {
			names = append(names, authKeysMember+"."+k.name)
		}
	}
	return names
}
