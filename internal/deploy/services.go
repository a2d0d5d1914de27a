package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certanchor/certanchor/internal/proc"
)

const (
	startTimeout = 60 * time.Second
	stopGrace    = 12 * time.Second // the services finish their requests within ten
	pollEvery    = 20 * time.Millisecond
)

// service is one certanchor process.
type service struct {
	Name  string   `json:"name"`
	Args  []string `json:"args"`
	Ready []string `json:"ready"` // URLs that answer 200 when it can be used
	ID    proc.ID  `json:"process"`
}

// Services are the processes of a deployment, known by name. Their list is kept in a file, so that another process can
// end what this one started.
type Services struct {
	dir  string
	exe  string
	list []*service
}

func (s *Services) file() string               { return filepath.Join(s.dir, "services.json") }
func (s *Services) logFile(name string) string { return filepath.Join(s.dir, name+".log") }

// openServices reads what an earlier process recorded in dir; none is an empty list.
func openServices(dir, exe string) (*Services, error) {
	s := &Services{dir: dir, exe: exe}
	data, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s.list); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file(), err)
	}
	return s, nil
}

func (s *Services) save() error {
	data, err := json.MarshalIndent(s.list, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.file() + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.file())
}

// Names of the services, in the order in which they were added.
func (s *Services) Names() []string {
	var names []string
	for _, v := range s.list {
		names = append(names, v.Name)
	}
	return names
}

// PIDs are the process numbers of the services that run.
func (s *Services) PIDs() map[string]int {
	pids := map[string]int{}
	for _, v := range s.list {
		if v.ID.State() != proc.Gone {
			pids[v.Name] = v.ID.PID
		}
	}
	return pids
}

func (s *Services) find(name string) (*service, error) {
	i := slices.IndexFunc(s.list, func(v *service) bool { return v.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("service %q: must be one of %s", name, strings.Join(s.Names(), ", "))
	}
	return s.list[i], nil
}

// add records a service without starting it.
func (s *Services) add(name string, ready []string, args ...string) {
	s.list = append(s.list, &service{Name: name, Args: args, Ready: ready})
}

// Running tells whether a service's process exists.
func (s *Services) Running(name string) bool {
	v, err := s.find(name)
	return err == nil && v.ID.State() != proc.Gone
}

// Launch starts a service that does not run, without waiting for it.
func (s *Services) Launch(name string) error {
	v, err := s.find(name)
	if err != nil {
		return err
	}
	if v.ID.State() != proc.Gone {
		return fmt.Errorf("service %s: is running already (process %d)", name, v.ID.PID)
	}
	v.ID, err = proc.Start(proc.Spec{
		Command: append([]string{s.exe}, v.Args...),
		Env:     os.Environ(),
		Dir:     s.dir,
		LogFile: s.logFile(name),
	})
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	if err := s.save(); err != nil {
		return errors.Join(fmt.Errorf("service %s: recording its process: %w", name, err), v.ID.Signal(syscall.SIGKILL))
	}
	return nil
}

// AwaitReady returns when the service says it can be used; it fails when the process ends first, with the end of its log.
func (s *Services) AwaitReady(ctx context.Context, name string) error {
	v, err := s.find(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, url := range v.Ready {
		err := Poll(ctx, func() error {
			if v.ID.State() == proc.Gone {
				return permanent{fmt.Errorf("ended; its log says:\n%s", s.Tail(name))}
			}
			return ready(ctx, url)
		})
		if err != nil {
			return fmt.Errorf("service %s: %w (log: %s)", name, err, s.logFile(name))
		}
	}
	return nil
}

// Start is Launch and AwaitReady.
func (s *Services) Start(ctx context.Context, name string) error {
	if err := s.Launch(name); err != nil {
		return err
	}
	return s.AwaitReady(ctx, name)
}

// Kill ends a service at once (SIGKILL).
func (s *Services) Kill(ctx context.Context, name string) error {
	v, err := s.find(name)
	if err != nil {
		return err
	}
	return v.ID.Kill(ctx)
}

// StopAll ends every service, the newest first, each in good order or after a while by force.
func (s *Services) StopAll(ctx context.Context) error {
	var errs []error
	for _, v := range slices.Backward(s.list) {
		if err := v.ID.Terminate(ctx, stopGrace); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Tail returns the end of a service's log.
func (s *Services) Tail(name string) string {
	data, err := os.ReadFile(s.logFile(name))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return permanent{err}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// permanent marks an error that polling again cannot mend.
type permanent struct{ error }

// Poll calls fn until it succeeds, fails permanently or ctx ends.
func Poll(ctx context.Context, fn func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := fn()
		var p permanent
		if err == nil {
			return nil
		}
		if errors.As(err, &p) {
			return p.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// freeAddresses reserves n distinct loopback addresses that nobody listens on. They are free until somebody takes them; a
// service that finds its address taken says so and ends.
func freeAddresses(n int) (addrs []string, err error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
