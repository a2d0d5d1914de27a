package cli

import (
	"fmt"
	"io"
	"os"
	"time"
)

// meter shows how far something long has come: on a terminal a line that is written over, elsewhere a line now and then.
type meter struct {
	w        io.Writer
	terminal bool
	what     string
	began    time.Time // of what
	from     uint64    // at which n
	shown    time.Time
	dirty    bool // a line without an end is on the terminal
}

func newMeter(w io.Writer) *meter {
	m := &meter{w: w}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		m.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return m
}

const meterPause = 200 * time.Millisecond

// show says that n of total are done; total 0: nobody knows how many there are.
func (m *meter) show(what string, n, total uint64) {
	now := time.Now()
	if m.what != what {
		m.what, m.began, m.from, m.shown = what, now, n, now
	}
	pause := barPause
	if m.terminal {
		pause = meterPause
	}
	if now.Sub(m.shown) < pause {
		return
	}
	m.shown = now
	text := fmt.Sprintf("%s %d", what, n)
	if total > 0 {
		text += fmt.Sprintf(" of %d", total)
	}
	if took := now.Sub(m.began).Seconds(); took > 0 && n > m.from {
		rate := float64(n-m.from) / took
		text += fmt.Sprintf(", %.0f/s", rate)
		if total > n {
			text += ", " + (time.Duration(float64(total-n) / rate * float64(time.Second))).Round(time.Second).String() + " left"
		}
	}
	if !m.terminal {
		fmt.Fprintln(m.w, text)
		return
	}
	fmt.Fprintf(m.w, "\r\x1b[K%s", text)
	m.dirty = true
}

// clear makes room for a line of something else.
func (m *meter) clear() {
	if m.dirty {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.dirty = false
	}
}
