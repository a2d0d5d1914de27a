// Package dual is dual control: what an operator of a CA may not do alone, two of them sign.
//
// An Operation says in full what is to be done: the CA, the kind of deed, its parameters (of a list: its SHA-256 and length), from when until
// when, and a random number. Its text is what operators read and what they sign, with keys of their own, so what is approved is what is
// carried out. A Policy, dual-control.json in the CA's directory, names the operators and says what needs them. An operation is carried out
// at most once.
//
// The policy binds those who come through the CA's API and commands. Who can write the CA's directory, or is root on its machine, can
// go around it; docs/operators.md tells what then remains to be seen.
package dual
