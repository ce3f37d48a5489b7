package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"letshare-server/internal/engine/disk"
	"letshare-server/internal/server"
)

// storageDir reads the flags, of which the required one must be there, and finds the directory
// of the database. ok is false when the command should end with code.
func storageDir(fs *flag.FlagSet, required string, args []string, stderr io.Writer) (dir string, code int, ok bool) {
	given := fs.String("dir", "", "`directory` of the database; storage.dir of the configuration if empty")
	flags := addConfigFlags(fs)
	if code, ok := parse(fs, args, stderr); !ok {
		return "", code, false
	}
	if required != "" && fs.Lookup(required).Value.String() == "" {
		fmt.Fprintf(stderr, "-%s is required\n", required)
		return "", exitUsage, false
	}
	if *given != "" {
		return *given, exitOK, true
	}
	cfg, _, err := flags.load()
	if err == nil && cfg.Storage.Dir == "" {
		err = errors.New("storage.dir is not set, so that there is no database; name its directory with -dir")
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return "", exitFailed, false
	}
	return cfg.Storage.Dir, exitOK, true
}

// backup copies the database to a file: through the socket of a running server, or from the
// directory if nobody uses it.
func backup(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("backup", "Copies the database to a file, as it is at one moment. The server may run meanwhile.", stderr)
	to := fs.String("to", "", "`file` to write, with mode 0600; an older one is replaced when the copy is whole (required)")
	dir, code, ok := storageDir(fs, "to", args, stderr)
	if !ok {
		return code
	}
	var contents disk.Contents
	err := disk.Save(*to, func(w io.Writer) error { return copyDatabase(dir, w) }, func(path string) (err error) {
		contents, err = disk.Verify(path)
		return err
	})
	if err != nil {
		fmt.Fprintln(stderr, "no backup:", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s holds %s\n", *to, contents)
	return exitOK
}

// copyDatabase asks the running server; without one it opens the database itself.
func copyDatabase(dir string, w io.Writer) error {
	err := copyFromServer(filepath.Join(dir, server.CommandSocket), w)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, disk.FileName)); err != nil {
		return err
	}
	s := disk.NewStore(disk.Options{Dir: dir})
	if err := s.Open(); err != nil {
		return err
	}
	return errors.Join(s.Backup(context.Background(), func(int64) (io.Writer, error) { return w, nil }), s.Close())
}

func copyFromServer(socket string, w io.Writer) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	response, err := client.Get("http://server/backup")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("the server answers %s: %s", response.Status, said)
	}
	_, err = io.Copy(w, response.Body) // fails if it is not all of it
	return err
}

func restore(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("restore", "Makes the database of a directory that has none from a backup, and checks all of it. The server must not run.", stderr)
	from := fs.String("from", "", "`file` that backup wrote (required)")
	dir, code, ok := storageDir(fs, "from", args, stderr)
	if !ok {
		return code
	}
	f, err := os.Open(*from)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	defer f.Close()
	contents, err := disk.Restore(dir, f)
	if err != nil {
		fmt.Fprintln(stderr, "not restored:", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s holds %s\n", dir, contents)
	return exitOK
}

func compact(args []string, stdout, stderr io.Writer) int {
	fs := newFlags("compact", "Writes the database anew, without the space that is free in it. The server must not run, and there must be room for both.", stderr)
	dir, code, ok := storageDir(fs, "", args, stderr)
	if !ok {
		return code
	}
	before, after, err := disk.Compact(dir)
	if err != nil {
		fmt.Fprintln(stderr, "not compacted:", err)
		return exitFailed
	}
	fmt.Fprintf(stdout, "from %d bytes to %d\n", before, after)
	return exitOK
}
