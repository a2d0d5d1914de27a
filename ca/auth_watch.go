package ca

import (
	"context"
	"time"
)

// watchPause is how often files are looked at: as long as a stolen token that was taken off the list may still be used.
const watchPause = time.Second

// watchFiles reads the clients file, the MSP and the dual-control policy again when they have changed, until ctx ends. What is refused is logged
// and leaves what was in force.
func (s *Server) watchFiles(ctx context.Context) {
	ticks := time.NewTicker(watchPause)
	defer ticks.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-s.reloadKick:
			asked = true
		case <-ticks.C:
		}
		if err := s.clients.reload(asked); err != nil {
			s.log.Error("a file that says who may use the API is refused, what was read before stays in force", "error", err)
		}
		if err := s.dual.reload(asked); err != nil {
			s.log.Error("the dual-control policy is refused, the one that was read before stays in force", "error", err)
		}
	}
}

// Reload has the clients file, the MSP and the dual-control policy read again, whether or not they seem changed.
func (s *Server) Reload() {
	select {
	case s.reloadKick <- struct{}{}:
	default:
	}
}
