package caimport

import (
	"io/fs"
	"os"
	"path/filepath"
)

// tree is a directory with certificates somewhere below.
type tree struct{ path string }

func (t *tree) name() string { return t.path }
func (t *tree) kind() string { return "certificates" }

// read goes through the tree in the order of names. Files that hold something else, keys and requests among them, are passed by, and
// counted. Links to files are followed, links to directories are not: they may lead in circles.
func (t *tree) read(s *sink) error {
	root, err := filepath.EvalSymlinks(t.path)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() {
				s.skip("link that leads to no file")
				return nil
			}
		} else if !d.Type().IsRegular() {
			return nil
		}
		what, err := recognise(path)
		if err != nil {
			return err
		}
		if what != isCerts {
			s.skip(what.String())
			return nil
		}
		return (&certFile{path: path}).read(s)
	})
}
