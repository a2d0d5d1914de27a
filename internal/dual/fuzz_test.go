package dual

import (
	"bytes"
	"testing"
)

func FuzzOperation(f *testing.F) {
	w := newWorld(f)
	f.Add(w.op(KindRevoke, map[string]string{"count": "5", "reason": "keyCompromise"}).Bytes())
	f.Add(w.op(KindPolicy, nil).Bytes())
	f.Add([]byte(signContext + "\nca: \nkind: revoke\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		op, err := ParseOperation(text)
		if err == nil && (!bytes.Equal(op.Bytes(), text) || op.Check() != nil || bytes.Equal(op.RejectionBytes(), text)) {
			t.Fatalf("%q is %q", text, op.Bytes())
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add(policyFile(f, nil, newPerson(f, "alice", RoleAdministrator), newPerson(f, "bob", RoleAdministrator)))
	f.Add([]byte(`{"version":1,"need":2,"operators":[],"rules":{}}`))
	f.Add([]byte(`{"version":1,"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		if len(p.Operators(KindPolicy)) < p.Quorum() || p.Quorum() < 2 || !p.Needs(KindPolicy, 1) {
			t.Fatalf("%q: a policy that nobody could change, or one person", data)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"version":1,"policy":"0000000000000000000000000000000000000000000000000000000000000000","profiles":"0000000000000000000000000000000000000000000000000000000000000000"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if st, err := parseState(data); err == nil && (!isHex(st.Policy, 64) && len(st.Previous) == 0 || !isHex(st.Profiles, 64)) {
			t.Fatalf("%q: %+v", data, st)
		}
		if w, err := parseWindow(data); err == nil {
			for _, n := range w {
				if n < 0 {
					t.Fatal(n)
				}
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	w := newWorld(f)
	s := w.store(at(noon))
	r := w.propose(s, "list", noon)
	data, err := readLimited(s.path(r.Operation.ID()+".json"), maxRecord)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	a, err := MarshalApproval(r.Operation, w.alice.approve(f, r.Operation))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a)
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRecord(data); err == nil && r.Operation.Check() != nil {
			t.Fatalf("%q", data)
		}
		if _, err := ParseApproval(r.Operation, data); err != nil {
			return
		}
	})
}
