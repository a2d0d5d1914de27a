package ocspbridge

import "github.com/certanchor/certanchor/ocsp-bridge/internal/events"

// openEvents makes what serves GET /v1/events. Run closes it, so that a server that shuts down need not wait for its streams.
func (b *Bridge) openEvents() {
	b.events = events.New(events.Config{
		Source: b.index, Subscribers: b.cfg.Settings.EventSubscribers, After: b.cfg.After, Log: b.log,
		Behind: func() error { return b.behind(b.index.View()) },
		Stale: func() error {
			_, err := b.fresh(b.index.View(), b.cfg.Now())
			return err
		},
	})
}
