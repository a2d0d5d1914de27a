package cli

import "testing"

func TestSubjectIsReadAsRFC4514Writes(t *testing.T) {
	n, err := parseSubject(`CN=Example CA\, Root, O=Example\\Sons,o=Second,C=NL`)
	if err != nil {
		t.Fatal(err)
	}
	if n.CommonName != "Example CA, Root" || len(n.Organization) != 2 || n.Organization[0] != `Example\Sons` || n.Country[0] != "NL" {
		t.Errorf("got %+v", n)
	}
	for _, bad := range []string{"", "Example", "CN=", "CN=a,CN=b", "X=1", "CN=a,"} {
		if _, err := parseSubject(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
