package ocspwire

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// NameChoice is which of GeneralName's choices a name is; the values are the tags of RFC 5280 section 4.2.1.6.
type NameChoice int

// Choices of GeneralName.
const (
	OtherName     NameChoice = 0
	RFC822Name    NameChoice = 1
	DNSName       NameChoice = 2
	X400Address   NameChoice = 3
	DirectoryName NameChoice = 4
	EDIPartyName  NameChoice = 5
	URI           NameChoice = 6
	IPAddress     NameChoice = 7
	RegisteredID  NameChoice = 8
)

// GeneralName of RFC 5280 section 4.2.1.6. The fields that the choice does not use are zero.
type GeneralName struct {
	Choice NameChoice
	Text   string                // RFC822Name, DNSName, URI: ASCII (IA5String)
	ID     asn1.ObjectIdentifier // RegisteredID; OtherName: its type
	// Value is, for OtherName, the DER of the value; for DirectoryName, the DER of the Name; for IPAddress, 4 or 16 octets; for
	// X400Address and EDIPartyName, the DER of the components, one after the other.
	Value []byte
}

// DirectoryNameOf makes a GeneralName of a DER Name, such as a certificate's RawSubject.
func DirectoryNameOf(rawName []byte) *GeneralName {
	return &GeneralName{Choice: DirectoryName, Value: rawName}
}

// ParseGeneralName reads one DER GeneralName with nothing after it. The result refers to der's memory, except Text. Errors: *MalformedError.
func ParseGeneralName(der []byte) (*GeneralName, error) {
	var (
		s    = cryptobyte.String(der)
		body cryptobyte.String
		tag  cbasn1.Tag
	)
	if !s.ReadAnyASN1(&body, &tag) || !s.Empty() || tag&0xc0 != 0x80 || tag&0x1f > 8 {
		return nil, malformed("", "", "must be one GeneralName (RFC 5280 section 4.2.1.6)")
	}
	n := &GeneralName{Choice: NameChoice(tag & 0x1f)}
	if tag != n.Choice.tag() {
		return nil, malformed("", "", n.Choice.String()+" must have the tag "+strconv.FormatUint(uint64(n.Choice.tag()), 16)+" (hexadecimal)")
	}
	if !n.read(body) {
		return nil, malformed("", "", "must be a "+n.Choice.String()+" (RFC 5280 section 4.2.1.6)")
	}
	return n, nil
}

// tag is the choice's on the wire: implicit, but for directoryName, since Name is itself a CHOICE.
func (c NameChoice) tag() cbasn1.Tag {
	t := cbasn1.Tag(c).ContextSpecific()
	switch c {
	case OtherName, X400Address, DirectoryName, EDIPartyName:
		return t.Constructed()
	}
	return t
}

func (n *GeneralName) read(body cryptobyte.String) (ok bool) {
	switch n.Choice {
	case OtherName:
		return n.readOther(body)
	case RFC822Name, DNSName, URI:
		n.Text = string(body)
		return isIA5(n.Text)
	case DirectoryName:
		n.Value = body
		return isName(body)
	case IPAddress:
		n.Value = body
		return len(body) == 4 || len(body) == 16
	case RegisteredID:
		n.ID, ok = oidFrom(body)
		return ok
	case EDIPartyName:
		n.Value = body
		return isEDIPartyName(body)
	}
	n.Value = body
	return isElements(body) && !body.Empty()
}

// readOther: OtherName ::= SEQUENCE { type-id OBJECT IDENTIFIER, value [0] EXPLICIT ANY DEFINED BY type-id }.
func (n *GeneralName) readOther(body cryptobyte.String) bool {
	var (
		outer, value cryptobyte.String
		tag          cbasn1.Tag
	)
	if !body.ReadASN1ObjectIdentifier(&n.ID) || !body.ReadASN1(&outer, explicit0) || !body.Empty() ||
		!outer.ReadAnyASN1Element(&value, &tag) || !outer.Empty() {
		return false
	}
	n.Value = value
	return true
}

// isName: Name ::= SEQUENCE OF SET SIZE (1..MAX) OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }. DER sorts a SET OF (X.690 section 11.6).
func isName(s cryptobyte.String) bool {
	var rdns, set, one, value cryptobyte.String
	if !s.ReadASN1(&rdns, cbasn1.SEQUENCE) || !s.Empty() {
		return false
	}
	for !rdns.Empty() {
		if !rdns.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return false
		}
		var last cryptobyte.String
		for !set.Empty() {
			var (
				oid asn1.ObjectIdentifier
				tag cbasn1.Tag
			)
			if !set.ReadASN1Element(&one, cbasn1.SEQUENCE) || bytes.Compare(last, one) > 0 {
				return false
			}
			if last = one; !one.ReadASN1(&value, cbasn1.SEQUENCE) || !value.ReadASN1ObjectIdentifier(&oid) ||
				!value.ReadAnyASN1(&one, &tag) || !value.Empty() {
				return false
			}
		}
	}
	return true
}

// isEDIPartyName: SEQUENCE { nameAssigner [0] DirectoryString OPTIONAL, partyName [1] DirectoryString }, explicitly tagged
// since DirectoryString is a CHOICE.
func isEDIPartyName(s cryptobyte.String) bool {
	var outer cryptobyte.String
	if s.PeekASN1Tag(explicit0) && (!s.ReadASN1(&outer, explicit0) || !isDirectoryString(outer)) {
		return false
	}
	return s.ReadASN1(&outer, explicit1) && isDirectoryString(outer) && s.Empty()
}

func isDirectoryString(s cryptobyte.String) bool {
	var (
		value cryptobyte.String
		tag   cbasn1.Tag
	)
	if !s.ReadAnyASN1(&value, &tag) || !s.Empty() {
		return false
	}
	switch tag {
	case cbasn1.T61String, cbasn1.PrintableString, cbasn1.UTF8String, cbasn1.Tag(28), cbasn1.Tag(30): // 28: UniversalString, 30: BMPString
		return true
	}
	return false
}

func isElements(s cryptobyte.String) bool {
	var (
		value cryptobyte.String
		tag   cbasn1.Tag
	)
	for !s.Empty() {
		if !s.ReadAnyASN1(&value, &tag) {
			return false
		}
	}
	return true
}

func isIA5(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// oidFrom reads an identifier from its DER content, where an implicit tag took the place of its own.
func oidFrom(content []byte) (oid asn1.ObjectIdentifier, ok bool) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(cbasn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	s := cryptobyte.String(b.BytesOrPanic())
	ok = s.ReadASN1ObjectIdentifier(&oid)
	return oid, ok
}

// Marshal encodes the name in DER. It fails on a name that ParseGeneralName would refuse.
func (n *GeneralName) Marshal() ([]byte, error) {
	b := cryptobyte.NewBuilder(nil)
	b.AddASN1(n.Choice.tag(), func(b *cryptobyte.Builder) {
		switch n.Choice {
		case OtherName:
			b.AddASN1ObjectIdentifier(n.ID)
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) { b.AddBytes(n.Value) })
		case RFC822Name, DNSName, URI:
			b.AddBytes([]byte(n.Text))
		case RegisteredID:
			id := cryptobyte.NewBuilder(nil)
			id.AddASN1ObjectIdentifier(n.ID)
			whole, err := id.Bytes()
			if err != nil {
				b.SetError(err)
				return
			}
			var content cryptobyte.String
			s := cryptobyte.String(whole)
			s.ReadASN1(&content, cbasn1.OBJECT_IDENTIFIER) // just written
			b.AddBytes(content)
		default:
			b.AddBytes(n.Value)
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("ocsp: encode %s: %w", n.Choice, err)
	}
	if _, err := ParseGeneralName(der); err != nil {
		return nil, err
	}
	return der, nil
}

var nameChoices = [...]string{
	"otherName", "rfc822Name", "dNSName", "x400Address", "directoryName", "ediPartyName", "uniformResourceIdentifier", "iPAddress", "registeredID",
}

// String is RFC 5280's name of the choice.
func (c NameChoice) String() string {
	if c < 0 || int(c) >= len(nameChoices) {
		return "GeneralName choice " + strconv.Itoa(int(c))
	}
	return nameChoices[c]
}

// String is for people: the choice and the value, in hexadecimal where there is no common text form.
func (n *GeneralName) String() string {
	var b strings.Builder
	b.WriteString(n.Choice.String() + ":")
	switch n.Choice {
	case RFC822Name, DNSName, URI:
		b.WriteString(strconv.QuoteToASCII(n.Text))
	case RegisteredID:
		b.WriteString(n.ID.String())
	case IPAddress:
		if ip, ok := netip.AddrFromSlice(n.Value); ok {
			b.WriteString(ip.String())
			break
		}
		fallthrough
	default:
		if n.Choice == OtherName {
			b.WriteString(n.ID.String() + "=")
		}
		fmt.Fprintf(&b, "%x", n.Value)
	}
	return b.String()
}
