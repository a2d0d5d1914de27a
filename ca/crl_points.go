package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cloudflare/cfssl/config"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certanchor/certanchor/chaincode/wire"
)

// Limits of a profile's CRL distribution point.
const (
	maxShards  = 1024 // each is a CRL of its own that is signed at least once a day
	maxCRLURLs = 16
	maxCRLURL  = 1024 // octets, expanded
	caMark     = "{ca}"
	shardMark  = "{shard}"
	fullFile   = "full.crl"
	deltaFile  = "delta.crl"
)

var oidCRLPoint = asn1.ObjectIdentifier{2, 5, 29, 31}

// profiles is what the CA issues.
type profiles struct {
	*config.Signing
	points map[string]*points     // by profile; none for a profile without crl_url
	rules  map[string]*issueRules // by profile
	cfssl  *cfsslProfiles
}

// points is the CRL distribution point of a profile's certificates: one, with every URL at which its CRL is to be had.
type points struct {
	urls   []string // the first is the scope of the shard's CRL
	shards int      // 0: the URLs are those of the complete CRL
}

// newProfiles adds the distribution points to what cfssl has read. As with cfssl's own keys, a profile takes what it leaves out
// from the default. Errors name key, value and rule.
func newProfiles(s *config.Signing, keys map[string]ownKeys) (*profiles, error) {
	p := &profiles{Signing: s, points: map[string]*points{}, rules: map[string]*issueRules{}}
	if s.Default != nil {
		if _, err := newPoints("signing.default", s.Default.CRL, keys[""]); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Profiles)) {
		key, k, first := "signing.profiles."+name, keys[name], s.Profiles[name].CRL
		if first == "" && k.mirrors == nil && k.shards == nil && s.Default != nil {
			key, k, first = "signing.default", keys[""], s.Default.CRL
		}
		pt, err := newPoints(key, first, k)
		if err != nil {
			return nil, err
		}
		if pt != nil {
			p.points[name] = pt
		}
		if p.rules[name], err = newRules("signing.profiles."+name, s.Profiles[name], inherited(name, keys)); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func newPoints(key, first string, k ownKeys) (*points, error) {
	p := &points{urls: append([]string{first}, k.mirrors...)}
	if k.shards != nil {
		p.shards = *k.shards
	}
	switch {
	case first == "" && (len(k.mirrors) > 0 || p.shards != 0):
		return nil, fmt.Errorf("%s.crl_url: must be set with %s and %s: it names the CRL", key, keyMirrors, keyShards)
	case first == "":
		return nil, nil
	case p.shards < 0 || p.shards > maxShards:
		return nil, fmt.Errorf("%s.%s %d: must be 0 to %d", key, keyShards, p.shards, maxShards)
	case len(p.urls) > maxCRLURLs:
		return nil, fmt.Errorf("%s.%s %d URLs: must be at most %d", key, keyMirrors, len(k.mirrors), maxCRLURLs-1)
	}
	for i, u := range p.urls {
		field := key + ".crl_url"
		if i > 0 {
			field = fmt.Sprintf("%s.%s[%d]", key, keyMirrors, i-1)
		}
		if err := p.check(field, u); err != nil {
			return nil, err
		}
		if i == 0 && p.shards > 0 && !isShardFile(shardFile(expand(u, wire.CAID{}, 0))) {
			return nil, invalid(field, u, "must end in a name of letters, digits, dots, dashes and underscores with .crl, other than full.crl, delta.crl, indirect.crl and *-delta.crl: "+
				"OCSP bridges serve the shard's CRL under it")
		}
		if slices.Contains(p.urls[:i], u) {
			return nil, invalid(field, u, "occurs twice")
		}
	}
	return p, nil
}

// check refuses a template that would not become a URL which every relying party can read (RFC 5280 section 4.2.1.6: an IA5String
// and absolute), or that does not tell shards apart.
func (p *points) check(field, template string) error {
	full := expand(template, wire.CAID{}, max(p.shards-1, 0))
	u, err := url.Parse(full)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return invalid(field, template, "must be an absolute http or https URL")
	case u.User != nil || u.Fragment != "" || strings.Contains(full, "#"):
		return invalid(field, template, "must be without user and fragment")
	case strings.ContainsFunc(full, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`<>"\^|{}`+"`", r) }):
		return invalid(field, template, "must be of the ASCII characters that a URL may have, and {ca} and {shard} its only placeholders")
	case len(full) > maxCRLURL:
		return invalid(field, template, "must have at most %d octets", maxCRLURL)
	case p.shards > 0 && !strings.Contains(template, shardMark):
		return invalid(field, template, "must contain %s, since %s is %d", shardMark, keyShards, p.shards)
	case p.shards == 0 && strings.Contains(template, shardMark):
		return invalid(field, template, "must not contain %s without %s", shardMark, keyShards)
	}
	return nil
}

// shardFile is the name under which OCSP bridges serve a shard's CRL.
func shardFile(scope string) string { return scope[strings.LastIndexByte(scope, '/')+1:] }

var shardName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.crl$`)

func isShardFile(name string) bool {
	return shardName.MatchString(name) && name != fullFile && name != deltaFile && name != "indirect.crl" && !strings.HasSuffix(name, "-delta.crl")
}

func expand(template string, id wire.CAID, shard int) string {
	return strings.NewReplacer(caMark, id.String(), shardMark, strconv.Itoa(shard)).Replace(template)
}

// scopes lists the URLs of all shards' CRLs.
func (p *profiles) scopes(id wire.CAID) []string {
	var urls []string
	for _, name := range slices.Sorted(maps.Keys(p.points)) {
		pt := p.points[name]
		for shard := range pt.shards {
			if u := expand(pt.urls[0], id, shard); !slices.Contains(urls, u) {
				urls = append(urls, u)
			}
		}
	}
	return urls
}

// of returns the URLs in the distribution point of a certificate. A serial is random, and so is its residue: every shard gets the
// same share.
func (p *points) of(id wire.CAID, serial *big.Int) []string {
	shard := 0
	if p.shards > 0 {
		shard = int(new(big.Int).Mod(serial, big.NewInt(int64(p.shards))).Int64())
	}
	urls := make([]string, len(p.urls))
	for i, t := range p.urls {
		urls[i] = expand(t, id, shard)
	}
	return urls
}

// extension is the CRL distribution point of a certificate with a serial; nil for a profile without one. crypto/x509 would make a
// DistributionPoint of each URL, and so of one CRL several, each of which a strict client wants.
func (p *profiles) extension(name string, id wire.CAID, serial *big.Int) ([]pkix.Extension, error) {
	pt := p.points[name]
	if pt == nil {
		return nil, nil
	}
	// RFC 5280 section 4.2.1.13: CRLDistributionPoints ::= SEQUENCE OF SEQUENCE { distributionPoint [0] { fullName [0] GeneralNames } }
	var b cryptobyte.Builder
	outer := []cbasn1.Tag{cbasn1.SEQUENCE, cbasn1.SEQUENCE, cbasn1.Tag(0).Constructed().ContextSpecific(), cbasn1.Tag(0).Constructed().ContextSpecific()}
	var nest func(b *cryptobyte.Builder, tags []cbasn1.Tag)
	nest = func(b *cryptobyte.Builder, tags []cbasn1.Tag) {
		if len(tags) > 0 {
			b.AddASN1(tags[0], func(b *cryptobyte.Builder) { nest(b, tags[1:]) })
			return
		}
		for _, u := range pt.of(id, serial) {
			b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(u)) }) // uniformResourceIdentifier
		}
	}
	nest(&b, outer)
	der, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return []pkix.Extension{{Id: oidCRLPoint, Value: der}}, nil
}

// newSerial draws a serial number of 159 random bits (RFC 5280 section 4.1.2.2: positive, at most 20 octets).
func newSerial() (*big.Int, error) {
	b := make([]byte, 20)
	for {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		b[0] &= 0x7f
		if !bytes.Equal(b, make([]byte, len(b))) {
			return new(big.Int).SetBytes(b), nil
		}
	}
}
