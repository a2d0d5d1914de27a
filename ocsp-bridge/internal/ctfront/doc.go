// Package ctfront is an organisation's certificate transparency front: for every CA on the trust list a log as RFC 6962 and
// C2SP static-ct-api describe it, under the organisation's own URL and key, and a log list that names them.
//
// The logs are one each, whoever serves them: an organisation's front answers reads from its own blocks, and hands submissions of another organisation's CA
// on to that organisation. It signs an SCT only for what is in its own blocks, so the k log IDs of a CA's log are k promises
// about one log: they share its failures.
package ctfront
