package client

// OnStep has f called at each step that a Monitor takes outside its own memory. An error of f ends the Monitor there, as a kill would.
func (m *Monitor) OnStep(f func(step string) error) { m.hook = f }
