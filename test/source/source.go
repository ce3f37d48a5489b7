// Package source makes the program's source a part of a test that builds and runs it: the
// go command then does not take a result from before a change for a new one.
package source

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Watch looks at every file that the program is built from, given the module's directory.
// The go command notes what a test looks at, and runs it again when that has changed.
func Watch(module string) error {
	for _, dir := range []string{"cmd", "internal", "go.mod", "Dockerfile", "configs"} {
		err := filepath.WalkDir(filepath.Join(module, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
