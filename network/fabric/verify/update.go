package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	"google.golang.org/protobuf/proto"
)

// element is a group, a value or a policy of a configuration.
type element struct {
	kind      string   // "group", "value" or "policy"
	path      []string // of the group that a value or policy is in; of a group itself
	version   uint64
	modPolicy string
	content   proto.Message
}

// elements lists a configuration by kind and path.
func elements(root *common.ConfigGroup) (map[string]element, error) {
	all := map[string]element{}
	if root == nil {
		return all, nil
	}
	return all, addElements(all, []string{rootGroup}, root)
}

func addElements(all map[string]element, path []string, g *common.ConfigGroup) error {
	all[elementKey("group", path)] = element{"group", path, g.GetVersion(), g.GetModPolicy(), g}
	named := func(key string) ([]string, error) {
		if key == "" || strings.Contains(key, "/") {
			return nil, fmt.Errorf("%s has an element %q: a name must not be empty or have a '/'", strings.Join(path, "/"), key)
		}
		return append(slices.Clone(path), key), nil
	}
	for key, v := range g.GetValues() {
		p, err := named(key)
		if err != nil {
			return err
		}
		all[elementKey("value", p)] = element{"value", path, v.GetVersion(), v.GetModPolicy(), v}
	}
	for key, v := range g.GetPolicies() {
		p, err := named(key)
		if err != nil {
			return err
		}
		all[elementKey("policy", p)] = element{"policy", path, v.GetVersion(), v.GetModPolicy(), v}
	}
	for key, sub := range g.GetGroups() {
		p, err := named(key)
		if err != nil {
			return err
		}
		if err := addElements(all, p, sub); err != nil {
			return err
		}
	}
	return nil
}

func elementKey(kind string, path []string) string { return kind + " /" + strings.Join(path, "/") }

const configField = "configuration"

// next checks that a new configuration results from an update that the present one's policies allow (Fabric: common/configtx), and
// returns it. Orderers check the same before they order it; a quorum of them that did not is found here.
func (c *channel) next(e *common.ConfigEnvelope) (*channel, error) {
	if got, want := e.GetConfig().GetSequence(), c.config.GetSequence()+1; got != want {
		return nil, faultf(configField+".sequence", fmt.Sprint(got), "must be %d", want)
	}
	signedUpdate, update, err := readUpdate(e.GetLastUpdate())
	if err != nil {
		return nil, faultf(configField+".last_update", "", "must be readable: %v", err)
	}
	if id := update.GetChannelId(); id != c.id {
		return nil, faultf(configField+".last_update", id, "must be for channel %s", c.id)
	}
	present, err := elements(c.config.GetChannelGroup())
	if err != nil {
		return nil, err
	}
	written, err := c.authorize(present, signedUpdate, update)
	if err != nil {
		return nil, err
	}
	maps.Copy(present, written)
	result, err := assemble([]string{rootGroup}, present)
	if err != nil {
		return nil, faultf(configField+".last_update", "", "must give a whole configuration: %v", err)
	}
	if !proto.Equal(result, e.GetConfig().GetChannelGroup()) {
		return nil, faultf(configField, fmt.Sprintf("sequence %d", e.GetConfig().GetSequence()), "must be what its update makes of the one before")
	}
	new, err := newChannel(c.id, e.GetConfig())
	if err != nil {
		return nil, faultf(configField, fmt.Sprintf("sequence %d", e.GetConfig().GetSequence()), "must be supported: %v", err)
	}
	return new, nil
}

func readUpdate(e *common.Envelope) (*common.ConfigUpdateEnvelope, *common.ConfigUpdate, error) {
	var p common.Payload
	if err := proto.Unmarshal(e.GetPayload(), &p); err != nil {
		return nil, nil, err
	}
	var h common.ChannelHeader
	if err := proto.Unmarshal(p.GetHeader().GetChannelHeader(), &h); err != nil {
		return nil, nil, err
	}
	if common.HeaderType(h.GetType()) != common.HeaderType_CONFIG_UPDATE {
		return nil, nil, fmt.Errorf("it is of type %d", h.GetType())
	}
	var signedUpdate common.ConfigUpdateEnvelope
	if err := proto.Unmarshal(p.GetData(), &signedUpdate); err != nil {
		return nil, nil, err
	}
	var update common.ConfigUpdate
	return &signedUpdate, &update, proto.Unmarshal(signedUpdate.GetConfigUpdate(), &update)
}

// authorize returns the elements that an update changes, if their policies are satisfied by who signed it.
func (c *channel) authorize(present map[string]element, signedUpdate *common.ConfigUpdateEnvelope, update *common.ConfigUpdate) (map[string]element, error) {
	read, err := elements(update.GetReadSet())
	if err != nil {
		return nil, faultf(configField+".read_set", "", "%v", err)
	}
	written, err := elements(update.GetWriteSet())
	if err != nil {
		return nil, faultf(configField+".write_set", "", "%v", err)
	}
	for key, r := range read {
		if has, ok := present[key]; !ok || has.version != r.version {
			return nil, faultf(configField+".read_set", fmt.Sprintf("%s of version %d", key, r.version), "must be as it is, version %d", has.version)
		}
	}
	maps.DeleteFunc(written, func(key string, w element) bool {
		r, ok := read[key]
		return ok && r.version == w.version
	})
	if len(written) == 0 {
		return nil, faultf(configField+".write_set", "nothing", "must change something")
	}
	var set []signed
	for _, s := range signedUpdate.GetSignatures() {
		var h common.SignatureHeader
		if err := proto.Unmarshal(s.GetSignatureHeader(), &h); err != nil {
			return nil, faultf(configField+".signatures", "", "must be readable: %v", err)
		}
		set = append(set, signed{h.GetCreator(), slices.Concat(s.GetSignatureHeader(), signedUpdate.GetConfigUpdate()), s.GetSignature()})
	}
	signers := c.identities.signers(set)
	for _, key := range slices.Sorted(maps.Keys(written)) {
		if err := c.mayWrite(key, written[key], present, signers); err != nil {
			return nil, err
		}
	}
	return written, nil
}

func (c *channel) mayWrite(key string, w element, present map[string]element, signers []*identity) error {
	if w.modPolicy == "" {
		return faultf(configField+".write_set", key, "must have a policy for its changes")
	}
	has, ok := present[key]
	if !ok {
		if w.version != 0 {
			return faultf(configField+".write_set", fmt.Sprintf("%s of version %d", key, w.version), "must have version 0, it is new")
		}
		return nil // its group changes too, and that needs a policy
	}
	if w.version != has.version+1 {
		return faultf(configField+".write_set", fmt.Sprintf("%s of version %d", key, w.version), "must have version %d", has.version+1)
	}
	p, ok := c.modPolicy(has)
	if !ok {
		return faultf(configField+".write_set", key, "has no policy %q for its changes", has.modPolicy)
	}
	if !p.satisfied(signers) {
		return faultf(configField+".signatures", fmt.Sprintf("%s, changing %s", names(signers), key), "must satisfy its policy %s: %s", has.modPolicy, p)
	}
	return nil
}

// modPolicy finds the policy for changes of an element: relative to its group unless the path is absolute.
func (c *channel) modPolicy(e element) (policy, bool) {
	if strings.HasPrefix(e.modPolicy, "/") {
		return c.policy(e.modPolicy)
	}
	return c.policy("/" + strings.Join(e.path, "/") + "/" + e.modPolicy)
}

// assemble makes a configuration of its elements.
func assemble(path []string, from map[string]element) (*common.ConfigGroup, error) {
	e, ok := from[elementKey("group", path)]
	if !ok {
		return nil, fmt.Errorf("%s is missing", elementKey("group", path))
	}
	g := e.content.(*common.ConfigGroup)
	out := &common.ConfigGroup{
		Version: g.GetVersion(), ModPolicy: orAdmins(g.GetModPolicy(), from), Groups: map[string]*common.ConfigGroup{},
		Values: map[string]*common.ConfigValue{}, Policies: map[string]*common.ConfigPolicy{},
	}
	for key := range g.GetGroups() {
		sub, err := assemble(append(slices.Clone(path), key), from)
		if err != nil {
			return nil, err
		}
		out.Groups[key] = sub
	}
	for key := range g.GetValues() {
		v, ok := from[elementKey("value", append(slices.Clone(path), key))].content.(*common.ConfigValue)
		if !ok {
			return nil, fmt.Errorf("value %s/%s is missing", strings.Join(path, "/"), key)
		}
		out.Values[key] = &common.ConfigValue{Version: v.GetVersion(), Value: v.GetValue(), ModPolicy: orAdmins(v.GetModPolicy(), from)}
	}
	for key := range g.GetPolicies() {
		p, ok := from[elementKey("policy", append(slices.Clone(path), key))].content.(*common.ConfigPolicy)
		if !ok {
			return nil, fmt.Errorf("policy %s/%s is missing", strings.Join(path, "/"), key)
		}
		out.Policies[key] = &common.ConfigPolicy{Version: p.GetVersion(), Policy: p.GetPolicy(), ModPolicy: orAdmins(p.GetModPolicy(), from)}
	}
	return out, nil
}

// orAdmins is how Fabric mends configurations that its first versions left without policies for changes.
func orAdmins(modPolicy string, from map[string]element) string {
	if _, ok := from["value /Channel/Orderer/Capabilities"]; ok && modPolicy == "" {
		return "Admins"
	}
	return modPolicy
}
