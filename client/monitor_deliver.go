package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// fatalError ends a Monitor: nothing more can be delivered, or remembered.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

func fatal(err error) error {
	if err == nil {
		return nil
	}
	return &fatalError{err}
}

// step is where a test may end the process.
func (m *Monitor) step(name string) error {
	if m.hook == nil {
		return nil
	}
	return fatal(m.hook(name))
}

// commit delivers a batch, then remembers that. Between the two lies the only moment after which events come again.
func (m *Monitor) commit(ctx context.Context, l *logState, next uint64, b *batch) error {
	if err := m.deliver(ctx, b.events); err != nil {
		return err
	}
	m.state.apply(b)
	l.Next, m.dirty = next, true
	if len(b.events) == 0 && m.cfg.Now().Sub(m.saved) < saveEvery {
		return nil // nothing would come again, only be read again
	}
	return m.flush()
}

func (m *Monitor) deliver(ctx context.Context, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	if err := m.step("deliver"); err != nil {
		return err
	}
	if err := m.cfg.Deliver(ctx, events); err != nil {
		return fatal(fmt.Errorf("events not delivered: %w", err))
	}
	return m.step("delivered")
}

// flush saves the state if it has changed.
func (m *Monitor) flush() error {
	if !m.dirty {
		return nil
	}
	if err := m.step("save"); err != nil {
		return err
	}
	if err := m.state.save(m.cfg.StateFile); err != nil {
		return fatal(err)
	}
	m.dirty, m.saved = false, m.cfg.Now()
	return m.step("saved")
}

// settle takes note of how it went with a log, and returns err for the round. An alarm is delivered once for as long as it lasts.
func (m *Monitor) settle(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil || errors.As(err, new(*fatalError)) {
		return err
	}
	l := m.state.Logs[name]
	if l == nil {
		l = &logState{} // the list, which is no log, and what was never seen
	}
	if err == nil {
		delete(m.failing, name)
		if l.Alarm != "" {
			m.cfg.Log.Info("alarm has ended", "log", m.origin(name), "alarm", l.Alarm)
			l.Alarm, m.dirty = "", true
		}
		return nil
	}
	now := m.cfg.Now()
	var alarm *alarmError
	if errors.As(err, &alarm) {
		delete(m.failing, name)
	} else {
		since, ok := m.failing[name]
		if !ok {
			since = now
			m.failing[name] = now
		}
		if now.Sub(since) < m.cfg.Patience {
			return err
		}
		alarm = &alarmError{class: AlarmBlind, detail: fmt.Errorf("out of sight since %s: %w", since.UTC().Format(time.RFC3339), err)}
		err = alarm
	}
	err = fmt.Errorf("%s: %w", m.origin(name), err)
	if l.Alarm == alarm.class {
		return err
	}
	if failed := m.deliver(ctx, []Event{m.alarmEvent(name, l, alarm, now)}); failed != nil {
		return failed
	}
	m.state.Logs[name] = l
	l.Alarm, m.dirty = alarm.class, true
	l.Alarms++
	return errors.Join(err, m.flush())
}

func (m *Monitor) alarmEvent(name string, l *logState, alarm *alarmError, now time.Time) Event {
	origin := m.origin(name)
	ev := Event{
		ID: fmt.Sprintf("%s#alarm-%d", origin, l.Alarms), Kind: EventAlarm, Time: now.UTC(), Log: origin,
		Index: l.Next, Alarm: alarm.class, Detail: alarm.detail.Error(),
	}
	if len(l.Checkpoint) > 0 {
		ev.Evidence = append(ev.Evidence, string(l.Checkpoint))
	}
	if len(alarm.served) > 0 && !bytes.Equal(alarm.served, l.Checkpoint) {
		ev.Evidence = append(ev.Evidence, string(alarm.served))
	}
	return ev
}

// report tells how far a log is.
func (m *Monitor) report(name string, began time.Time, from, next, size uint64) {
	if m.cfg.Progress == nil {
		return
	}
	p := MonitorProgress{Log: m.origin(name), Next: next, Size: size}
	if took := m.cfg.Now().Sub(began); took > 0 {
		p.PerSecond = float64(next-from) / took.Seconds()
		p.Remaining = time.Duration(float64(size-next) / p.PerSecond * float64(time.Second))
	}
	m.cfg.Progress(p)
}
