package metrics

// PolicyState is what a bridge shows about the consortium's policy.
type PolicyState struct {
	Version uint64 // in force; 0: there is none
	Refused bool   // the file that was read last is not in force
}

// Policy adds the metrics of a bridge's policy. state is asked at each scrape, from any goroutine.
func (r *Registry) Policy(state func() PolicyState) {
	r.Gauge("policy_version", "Version of the policy in force; 0: there is none.", func() float64 { return float64(state().Version) })
	r.Gauge("policy_file_refused", "1 while the policy file that was read last is not in force, for the reason in the log.", func() float64 {
		if state().Refused {
			return 1
		}
		return 0
	})
}
