package demo

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Step is one line of the story as it went.
type Step struct {
	Name   string  `json:"name"`
	Detail string  `json:"detail,omitempty"`
	Millis float64 `json:"ms"`
	Error  string  `json:"error,omitempty"`
}

// report runs steps one after another and prints each, when it has ended, with its measured time.
type report struct {
	out   io.Writer // nil: silent
	steps []Step
}

// do runs one step. Its error ends the story: later steps build on it.
func (r *report) do(ctx context.Context, name string, run func(context.Context) (detail string, err error)) error {
	start := time.Now()
	detail, err := run(ctx)
	step := Step{Name: name, Detail: detail, Millis: float64(time.Since(start).Microseconds()) / 1000}
	mark := "ok"
	if err != nil {
		mark, step.Error = "NO", err.Error()
	}
	r.steps = append(r.steps, step)
	if r.out != nil {
		fmt.Fprintf(r.out, "  %s %2d  %-52s %9.1f ms  %s\n", mark, len(r.steps), name, step.Millis, detail)
	}
	if err != nil {
		return fmt.Errorf("step %d, %s: %w", len(r.steps), name, err)
	}
	return nil
}
