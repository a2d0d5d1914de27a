package verify

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

// identity is a certificate of a member of an MSP of the channel.
type identity struct {
	msp   *memberService
	cert  *x509.Certificate
	chain []*x509.Certificate // from cert up to a root of msp
	// invalid says why the MSP does not accept the certificate as an identity; nil: it does. Fabric asks that later than
	// whether the certificate belongs to the MSP at all, and not of everyone.
	invalid error
}

// key is the same for two identities that Fabric takes for one. A certificate's signature has several encodings; what it signs
// does not.
func (id *identity) key() string {
	sum := sha256.Sum256(id.cert.RawTBSCertificate)
	return id.msp.id + "/" + hex.EncodeToString(sum[:])
}

func (id *identity) String() string {
	return fmt.Sprintf("%s of %s", id.cert.Subject.CommonName, id.msp.id)
}

// validAt tells whether id and the CAs above it are valid at a claimed time that may be off by skew.
func (id *identity) validAt(at time.Time, skew time.Duration) error {
	for _, c := range id.chain {
		if at.Add(skew).Before(c.NotBefore) || at.Add(-skew).After(c.NotAfter) {
			return fmt.Errorf("%q is valid from %s to %s", c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// verify checks a signature by id over message as Fabric's bccsp does: ECDSA over SHA-256, low S only.
func (id *identity) verify(message, signature []byte) error {
	switch public := id.cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(signature, &rs); err != nil {
			return fmt.Errorf("signature: %w", err)
		}
		if rs.R.Sign() != 1 || rs.S.Sign() != 1 {
			return errors.New("signature: not positive")
		}
		if half := new(big.Int).Rsh(public.Params().N, 1); rs.S.Cmp(half) > 0 {
			return errors.New("signature: S is in the upper half")
		}
		digest := sha256.Sum256(message)
		if !ecdsa.Verify(public, digest[:], rs.R, rs.S) {
			return errors.New("signature: does not verify")
		}
		return nil
	case ed25519.PublicKey:
		if !ed25519.Verify(public, message, signature) {
			return errors.New("signature: does not verify")
		}
		return nil
	default:
		return fmt.Errorf("key of type %T", public)
	}
}

// identities resolves serialized identities under one configuration and remembers the answers: a channel has few of them.
type identities struct {
	msps map[string]*memberService

	mu    sync.Mutex
	known map[[sha256.Size]byte]resolved // guarded by mu
}

type resolved struct {
	id  *identity
	err error
}

// maxKnown bounds the memory that made-up identities can take.
const maxKnown = 4096

func newIdentities(msps map[string]*memberService) *identities {
	return &identities{msps: msps, known: map[[sha256.Size]byte]resolved{}}
}

// resolve finds who a serialized identity is. The error says why it is nobody of this channel; whether the MSP accepts it
// otherwise is in identity.invalid.
func (s *identities) resolve(serialized []byte) (*identity, error) {
	sum := sha256.Sum256(serialized)
	s.mu.Lock()
	r, ok := s.known[sum]
	s.mu.Unlock()
	if ok {
		return r.id, r.err
	}
	r.id, r.err = s.parse(serialized)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[sum] = r
	return r.id, r.err
}

func (s *identities) parse(serialized []byte) (*identity, error) {
	var si msp.SerializedIdentity
	if err := proto.Unmarshal(serialized, &si); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	m := s.msps[si.GetMspid()]
	if m == nil {
		return nil, fmt.Errorf("identity: MSP %q is not in the channel's configuration", si.GetMspid())
	}
	cert, err := parsePEM(si.GetIdBytes())
	if err != nil {
		return nil, fmt.Errorf("identity of %s: %w", m.id, err)
	}
	return m.identify(cert)
}

func parsePEM(encoded []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(encoded)
	if block == nil {
		return nil, errors.New("no PEM in it")
	}
	return x509.ParseCertificate(block.Bytes)
}

// signed is a message and what claims to be an identity's signature over it.
type signed struct{ identity, message, signature []byte }

// signers returns the distinct identities whose signatures verify. Whether their MSPs accept them is for the policy to ask.
func (s *identities) signers(set []signed) []*identity {
	var ids []*identity
	seen := map[string]bool{}
	for _, sd := range set {
		id, err := s.resolve(sd.identity)
		if err != nil || seen[id.key()] || id.verify(sd.message, sd.signature) != nil {
			continue
		}
		seen[id.key()] = true
		ids = append(ids, id)
	}
	return ids
}
