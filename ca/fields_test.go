package ca

import (
	"bytes"
	"encoding/json"
	"testing"
)

// checkAgainstEncodingJSON: whatever the strict reader takes, encoding/json takes too and reads alike.
func checkAgainstEncodingJSON(t *testing.T, data []byte, serial, reason, date string) {
	t.Helper()
	var v struct {
		Serial string `json:"serial"`
		Reason string `json:"reason"`
		Date   string `json:"date"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || v.Serial != serial || v.Reason != reason || v.Date != date {
		t.Fatalf("%q: %q %q %q, encoding/json: %+v, %v", data, serial, reason, date, v, err)
	}
	if serial == "" || reason == "" {
		t.Fatalf("%q: a required field is empty", data)
	}
}
