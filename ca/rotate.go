package ca

// FinishRotation is Finish for the generation that Rotate made a request for: its key is active as soon as the ledger trusts it.
func FinishRotation(o FinishOptions) error {
	o.successor = true
	return Finish(o)
}
