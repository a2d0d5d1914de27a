package dual

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certanchor/certanchor/internal/keyfile"
)

// maxWindowFile is more than one number for each minute of the longest window takes, in octets.
const maxWindowFile = 4 << 20

// Take reports whether n certificates may be revoked without approvals: those that were in the policy's window, of all clients together, and
// n more are not too many. Then they are counted, durably, before anything is revoked; what is then not revoked counts all the same.
func (s *Store) Take(p *Policy, n int) (bool, error) {
	if p == nil || !p.asks(KindRevoke) {
		return true, nil
	}
	if p.Needs(KindRevoke, n) {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	since, total := now.Add(-p.window).Unix()/60, n
	next := map[int64]int{}
	for minute, k := range s.window {
		if minute >= since {
			total += k
		}
		if minute >= now.Add(-maxWindow).Unix()/60 {
			next[minute] = k
		}
	}
	if total > *p.rules.RevokeMoreThan {
		return false, nil
	}
	next[now.Unix()/60] += n
	data, err := json.Marshal(next)
	if err == nil {
		err = os.MkdirAll(filepath.Join(s.dir, stateDir), 0o700)
	}
	if err == nil {
		err = keyfile.Replace(filepath.Join(s.dir, stateDir, windowFile), data, 0o600)
	}
	if err != nil {
		return false, err
	}
	s.window = next
	return true, nil
}

func (s *Store) readWindow() error {
	path := filepath.Join(s.dir, stateDir, windowFile)
	data, err := readLimited(path, maxWindowFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.window, err = parseWindow(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseWindow(data []byte) (map[int64]int, error) {
	w := map[int64]int{}
	if err := strictJSON(data, &w); err != nil {
		return nil, err
	}
	for minute, n := range w {
		if n < 0 {
			return nil, fmt.Errorf("%d: %d must not be negative", minute, n)
		}
	}
	return w, nil
}
