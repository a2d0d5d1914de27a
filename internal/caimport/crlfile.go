package caimport

import (
	"bytes"
	"fmt"
	"os"
	"slices"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// crlFile is a CRL in a file.
type crlFile struct {
	path string
	ca   *Authority
	list *List // set by read
}

func (c *crlFile) name() string { return c.path }
func (c *crlFile) kind() string { return "CRL" }

// load reads and verifies the CRL. Anything wrong with it as a whole is an error: nothing of it can be believed.
func (c *crlFile) load() (*List, error) {
	if c.list != nil {
		return c.list, nil
	}
	info, err := os.Stat(c.path)
	if err != nil {
		return nil, err
	}
	if info.Size() > 2*MaxCRLBytes { // PEM is a third longer
		return nil, fmt.Errorf("%s: %w", c.path, crlError("CRL", fmt.Sprintf("%d octets", info.Size()), "must have at most %d", MaxCRLBytes))
	}
	data, err := os.ReadFile(c.path)
	if err != nil {
		return nil, err
	}
	list, err := ParseCRL(data)
	if err == nil {
		err = list.Verify(c.ca.Certs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path, err)
	}
	c.list = list
	return list, nil
}

func (c *crlFile) read(s *sink) error {
	list, err := c.load()
	if err != nil {
		return err
	}
	err = list.Each(func(n int, serial wire.Serial, st Status, err error) error {
		w := Where{Source: c.path, Entry: n}
		if err != nil {
			return s.bad(bad(w, "entry", serial.String(), "%v", err).about(serial))
		}
		return s.record(&Record{Where: w, Serial: serial, Status: st})
	})
	return err
}

// orderCRLs puts complete CRLs before deltas, older ones before newer ones, and refuses a delta without a complete CRL that it continues:
// RFC 5280 section 5.2.4, one with a number from the delta's base up to below the delta's own.
func orderCRLs(all []source) error {
	var complete, deltas []*crlFile
	var places []int
	for i, s := range all {
		c, ok := s.(*crlFile)
		if !ok {
			continue
		}
		list, err := c.load()
		if err != nil {
			return err
		}
		places = append(places, i)
		if list.Base != nil {
			deltas = append(deltas, c)
		} else {
			complete = append(complete, c)
		}
	}
	for _, d := range deltas {
		if err := d.checkBase(complete); err != nil {
			return err
		}
	}
	byTime := func(a, b *crlFile) int { return a.list.ThisUpdate.Compare(b.list.ThisUpdate) }
	slices.SortStableFunc(complete, byTime)
	slices.SortStableFunc(deltas, byTime)
	sorted := append(complete, deltas...)
	for i, place := range places {
		all[place] = sorted[i]
	}
	return nil
}

func (c *crlFile) checkBase(complete []*crlFile) error {
	if c.list.Number == nil || c.list.Base.Cmp(c.list.Number) >= 0 {
		return fmt.Errorf("%s: %w", c.path, crlError("deltaCRLIndicator", c.list.Base.String(), "must be below the CRL's number, which must be there (RFC 5280 section 5.2.4)"))
	}
	for _, b := range complete {
		n := b.list.Number
		if n != nil && n.Cmp(c.list.Base) >= 0 && n.Cmp(c.list.Number) < 0 && bytes.Equal(b.list.Scope, c.list.Scope) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", c.path, crlError("deltaCRLIndicator", c.list.Base.String(),
		"must be of a complete CRL that is imported with it, with a number from %s to below %s (RFC 5280 section 5.2.4)", c.list.Base, c.list.Number))
}
