package deploy

import "syscall"

// Freeze suspends a service (SIGSTOP): it keeps its ports and connections and answers nothing.
func (s *Services) Freeze(name string) error { return s.signal(name, syscall.SIGSTOP) }

// Thaw lets a frozen service go on.
func (s *Services) Thaw(name string) error { return s.signal(name, syscall.SIGCONT) }

func (s *Services) signal(name string, sig syscall.Signal) error {
	v, err := s.find(name)
	if err != nil {
		return err
	}
	return v.ID.Signal(sig)
}
