package metrics

import "github.com/prometheus/client_golang/prometheus"

// Auth counts who is let in. A nil *Auth takes no notice.
type Auth struct {
	requests *prometheus.CounterVec
	limited  *prometheus.CounterVec
	reloads  *prometheus.CounterVec
}

// Auth adds the metrics of authentication. It may be called once for a registry.
func (r *Registry) Auth() *Auth {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: "ca_auth", Name: name, Help: help}, labels)
	}
	a := &Auth{
		requests: counter("requests_total", "Requests by how their clients were authenticated (token, hmac, certificate, none), and whether they were.", "how", "outcome"),
		limited:  counter("limited_total", "Requests turned away because a client was over its rate; failed authentications of addresses that have too many are client \"\".", "client"),
		reloads:  counter("reloads_total", "Times that the clients file, the MSP or the dual-control policy was read again because it had changed.", "file", "outcome"),
	}
	r.reg.MustRegister(a.requests, a.limited, a.reloads)
	return a
}

// Request counts a request.
func (a *Auth) Request(how string, ok bool) {
	if a == nil {
		return
	}
	outcome := "refused"
	if ok {
		outcome = "ok"
	}
	a.requests.WithLabelValues(how, outcome).Inc()
}

// Limited counts a request that was turned away.
func (a *Auth) Limited(client string) {
	if a != nil {
		a.limited.WithLabelValues(client).Inc()
	}
}

// Reloaded counts a file that was read again.
func (a *Auth) Reloaded(file string, ok bool) {
	if a == nil {
		return
	}
	outcome := "refused"
	if ok {
		outcome = "ok"
	}
	a.reloads.WithLabelValues(file, outcome).Inc()
}
