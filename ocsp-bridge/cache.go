package ocspbridge

import (
	"encoding/binary"
	"sync"

	"github.com/certanchor/certanchor/internal/ocspwire"
	"github.com/certanchor/certanchor/ocsp-bridge/internal/responder"
)

type identity = responder.Identity

// answerCache saves signatures, not decisions: every request is decided from the index, and only when the decision, its times
// and its signer are the same as before is the old signature used. So it cannot bring back an older status.
type answerCache struct {
	mu sync.Mutex
	m  map[string][]byte
}

const maxAnswers = 8192 // some 10 MB

// sign returns resp signed by id. Answers with a nonce, or about several certificates, are signed each time.
func (c *answerCache) sign(resp *ocspwire.Response, id *identity) ([]byte, error) {
	if resp.Nonce != nil || len(resp.Responses) != 1 {
		return resp.Sign(id.Key)
	}
	key := answerKey(&resp.Responses[0], id)
	c.mu.Lock()
	der := c.m[key]
	c.mu.Unlock()
	if der != nil {
		return der, nil
	}
	der, err := resp.Sign(id.Key)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxAnswers {
		c.m = make(map[string][]byte)
	}
	c.m[key] = der
	return der, nil
}

// answerKey holds everything of a response that is signed except producedAt.
func answerKey(s *ocspwire.SingleResponse, id *identity) string {
	b := make([]byte, 0, 256)
	for _, n := range []int64{int64(s.Status), int64(s.Reason), s.RevokedAt.Unix(), s.ThisUpdate.Unix(), s.NextUpdate.Unix()} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, e := range s.Extensions {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(e.Value))), e.Value...)
	}
	b = append(binary.BigEndian.AppendUint32(b, uint32(len(s.ID.Raw))), s.ID.Raw...)
	return string(append(b, id.Cert.SerialNumber.Bytes()...))
}
