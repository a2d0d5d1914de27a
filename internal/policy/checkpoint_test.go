package policy_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/certanchor/certanchor/internal/merklelog"
	"github.com/certanchor/certanchor/internal/merklelog/merklelogtest"
	"github.com/certanchor/certanchor/internal/policy"
	"github.com/certanchor/certanchor/internal/policy/policytest"
	"github.com/certanchor/certanchor/internal/tlogproof"
)

const origin = channel + "/map"

func newLog(entries int) *merklelogtest.Memory {
	log := merklelogtest.New()
	for i := range entries {
		log.Append(1, merklelog.Entry{Leaf: []byte{byte(i)}})
	}
	return log
}

func TestCheckpointsNeedAServerAndAQuorum(t *testing.T) {
	c := consortium(t)
	o := c.Orgs
	stranger := policytest.NewOrg(t, channel, "Org9MSP", "", now)
	log := newLog(5)
	full := policytest.Checkpoint(t, log, origin, 5, o[1], o[0], o[3])
	for _, strict := range []bool{false, true} {
		cp, err := c.Policy.OpenCheckpoint(full, origin, strict)
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size != 5 || cp.Root != log.Head().Root || !slices.Equal(cp.Servers, []string{"Org2MSP"}) ||
			!slices.Equal(cp.Cosigners, []string{"Org1MSP", "Org2MSP", "Org4MSP"}) || !cp.Oldest.Equal(at) || !cp.Newest.Equal(at) {
			t.Errorf("checkpoint is %+v", cp)
		}
	}
	head := log.Head()
	sign := func(signers ...note.Signer) []byte {
		signed, err := (&tlogproof.Checkpoint{Origin: origin, Size: head.Size, Root: head.Root}).Sign(signers...)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for what, signed := range map[string][]byte{
		"two cosigners":                  policytest.Checkpoint(t, log, origin, 5, o[0], o[1]),
		"no log key":                     sign(o[0].Cosigner, o[1].Cosigner, o[2].Cosigner),
		"log keys count as no cosigners": sign(o[0].Log, o[1].Log, o[2].Log, o[0].Cosigner),
		"strangers":                      sign(o[0].Log, o[0].Cosigner, o[1].Cosigner, stranger.Cosigner),
		"an impostor":                    sign(o[0].Log, o[0].Cosigner, o[1].Cosigner, policytest.NewOrg(t, channel, "Org3MSP", "x", now).Cosigner),
		"nothing":                        nil,
	} {
		if cp, err := c.Policy.OpenCheckpoint(signed, origin, false); !errors.Is(err, policy.ErrQuorum) {
			t.Errorf("%s: %+v, %v", what, cp, err)
		}
	}
	if _, err := c.Policy.OpenCheckpoint(full, channel+"/status", false); err == nil || errors.Is(err, policy.ErrQuorum) {
		t.Errorf("another log: %v", err)
	}
}

func TestAStrictCheckpointHasNoByteThatNobodySigned(t *testing.T) {
	c := consortium(t)
	o := c.Orgs
	log := newLog(5)
	good := policytest.Checkpoint(t, log, origin, 5, o[0], o[1], o[2])
	_, n, err := tlogproof.ReadUnverified(good)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := note.Sign(&note.Note{Text: n.Text}, policytest.NewOrg(t, channel, "Org9MSP", "", now).Log)
	if err != nil {
		t.Fatal(err)
	}
	_, s, err := tlogproof.ReadUnverified(stranger)
	if err != nil {
		t.Fatal(err)
	}
	withStranger, err := tlogproof.Assemble(n.Text, append(n.UnverifiedSigs, s.UnverifiedSigs...)...)
	if err != nil {
		t.Fatal(err)
	}
	body, sigs, _ := strings.Cut(string(good), "\n\n")
	lines := strings.SplitAfter(strings.TrimSuffix(sigs, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	permuted := slices.Clone(lines)
	slices.Reverse(permuted)
	for what, signed := range map[string]string{
		"a stranger's signature": string(withStranger),
		"another order":          body + "\n\n" + strings.Join(permuted, ""),
		"a line repeated":        body + "\n\n" + lines[0] + strings.Join(lines, ""),
	} {
		if _, err := c.Policy.OpenCheckpoint([]byte(signed), origin, false); err != nil {
			t.Errorf("%s: refused when not strict: %v", what, err)
		}
		if _, err := c.Policy.OpenCheckpoint([]byte(signed), origin, true); !errors.Is(err, policy.ErrQuorum) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range good { // base64 has bits that decoders ignore: they count too
		for _, bit := range []byte{1, 2, 0x20} {
			bad := bytes.Clone(good)
			bad[i] ^= bit
			if _, err := c.Policy.OpenCheckpoint(bad, origin, true); err == nil {
				t.Errorf("byte %d, bit %#x: believed", i, bit)
			}
		}
	}
}
