// Package e2e holds certanchor ca import and ca mirror to their word as processes: they are killed in mid-import, and the walkthrough in docs is
// carried out. It has tests only.
package e2e
