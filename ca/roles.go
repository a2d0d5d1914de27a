package ca

import (
	"maps"
	"slices"
	"strings"
)

// Role says what a client of the HTTP API may do. docs/operators.md has the table.
type Role string

// Roles.
const (
	RoleOperator      Role = "operator"      // the daily business: issue, change the status of certificates, enrol responders
	RoleAdministrator Role = "administrator" // the CA itself: keys, profiles, backups; no certificates
	RoleRevoker       Role = "revoker"       // change the status of certificates, and read
	RoleRequester     Role = "requester"     // issue and read
	RoleResponder     Role = "responder"     // get the certificate of a delegated OCSP responder
	RoleAuditor       Role = "auditor"       // read
)

// Roles lists all roles, for messages.
func Roles() string {
	var names []string
	for _, r := range slices.Sorted(maps.Keys(allowed)) {
		names = append(names, string(r))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// action is what a route needs.
type action int

const (
	actRead action = iota
	actIssue
	actRevoke
	actEnrol
	actDescribe
	actExport   // backups, with or without keys
	actKeys     // states and rotation of keys
	actProfiles // what the CA issues
	actApprove  // operations under dual control: who has a key of an operator signs, this is about handing it in
)

func (a action) String() string {
	return [...]string{
		"read certificates", "issue certificates", "change the status of certificates", "enrol OCSP responders", "see the CA's description",
		"export the CA's files", "change the state of keys", "change profiles", "approve operations",
	}[a]
}

// allowed is least privilege: who issues cannot touch keys, who holds the keys' lifecycle cannot issue.
var allowed = map[Role]map[action]bool{
	RoleOperator:      {actRead: true, actIssue: true, actRevoke: true, actEnrol: true, actDescribe: true, actApprove: true},
	RoleAdministrator: {actRead: true, actDescribe: true, actExport: true, actKeys: true, actProfiles: true, actApprove: true},
	RoleRevoker:       {actRead: true, actRevoke: true, actDescribe: true, actApprove: true},
	RoleRequester:     {actRead: true, actIssue: true, actDescribe: true},
	RoleResponder:     {actEnrol: true, actDescribe: true},
	RoleAuditor:       {actRead: true, actDescribe: true},
}
