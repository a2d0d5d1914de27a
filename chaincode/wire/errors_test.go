package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseMessageUndoesMessage(t *testing.T) {
	e := Errorf(NotFound, "changes[0].serial", `0"1`+"\n", "must be %d", 7)
	for _, message := range []string{
		e.Message(),
		"endorsement failure: chaincode response 500, " + e.Message(),
		e.Message() + " and what a peer adds",
	} {
		got, ok := ParseMessage(message)
		if !ok || *got != *e {
			t.Errorf("ParseMessage(%q) = %+v, %t", message, got, ok)
		}
	}
	for _, message := range []string{"", "error", errorPrefix, errorPrefix + "{}", errorPrefix + "{", errorPrefix + `{"code":7}`} {
		if got, ok := ParseMessage(message); ok {
			t.Errorf("ParseMessage(%q) = %+v", message, got)
		}
	}
}

// What a caller sent may be large and hostile; an error that quotes it is neither.
func TestErrorsStaySmallAndPrintable(t *testing.T) {
	for _, s := range []string{strings.Repeat("x", 1<<20), strings.Repeat("\xff", 1000), strings.Repeat("\u20ac", 1000), "a\xff"} {
		e := Errorf(InvalidArgument, "field", s, "quotes %s", s)
		if len(e.Value) > 140 || len(e.Rule) > 530 || !utf8.ValidString(e.Value) || !utf8.ValidString(e.Rule) {
			t.Errorf("value of %d bytes, rule of %d", len(e.Value), len(e.Rule))
		}
		if got, ok := ParseMessage(e.Message()); !ok || *got != *e {
			t.Errorf("ParseMessage(%q) = %+v", e.Message(), got)
		}
	}
}
