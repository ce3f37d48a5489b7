package memory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"letshare-server/internal/directory"
	"letshare-server/internal/statefile"
)

// apps are the records of apps that were made at run time.
type apps struct {
	// mu guards the fields below. The file is written under it, which takes as long as the disk
	// does; nothing else is called.
	mu      sync.Mutex
	records map[string]directory.App
	last    uint64 // newest revision
	file    *appsFile
}

// PutApp records an app.
func (d *Directory) PutApp(_ context.Context, id string, revision uint64, data json.RawMessage, max int) (uint64, error) {
	a := &d.store.apps
	a.mu.Lock()
	defer a.mu.Unlock()
	old, there := a.records[id]
	switch {
	case old.Revision != revision: // 0 if there is none
		return 0, directory.ErrConflict
	case !there && max > 0 && len(a.records) >= max:
		return 0, directory.ErrTooMany
	}
	records := maps.Clone(a.records)
	if records == nil {
		records = make(map[string]directory.App)
	}
	id = strings.Clone(id)
	next := a.last + 1
	records[id] = directory.App{ID: id, Revision: next, Data: bytes.Clone(data)}
	return next, d.store.replaceAppsLocked(records)
}

// DeleteApp removes an app.
func (d *Directory) DeleteApp(_ context.Context, id string, revision uint64) error {
	a := &d.store.apps
	a.mu.Lock()
	defer a.mu.Unlock()
	old, there := a.records[id]
	if !there || old.Revision != revision {
		return directory.ErrConflict
	}
	records := maps.Clone(a.records)
	delete(records, id)
	return d.store.replaceAppsLocked(records)
}

// replaceAppsLocked adopts records, which the caller has made from the ones before with one
// change, keeps them if there is a file, and tells all nodes.
func (s *Store) replaceAppsLocked(records map[string]directory.App) error {
	a := &s.apps
	replaced, err := true, error(nil)
	if a.file != nil {
		replaced, err = a.file.write(a.last+1, records)
	}
	if !replaced {
		return fmt.Errorf("%w: %w", directory.ErrUnavailable, err)
	}
	a.records = records
	a.last++
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, n := range s.nodes {
		select {
		case n.apps <- struct{}{}:
		default: // it has a notice that it has not read yet
		}
	}
	return err
}

// Apps returns all apps.
func (d *Directory) Apps(context.Context) ([]directory.App, error) {
	a := &d.store.apps
	a.mu.Lock()
	defer a.mu.Unlock()
	return sorted(a.records), nil
}

// AppsRevision returns the newest revision.
func (d *Directory) AppsRevision(context.Context) (uint64, error) {
	a := &d.store.apps
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, nil
}

func sorted(records map[string]directory.App) []directory.App {
	return slices.SortedFunc(maps.Values(records), func(a, b directory.App) int { return cmp.Compare(a.ID, b.ID) })
}

// AppsChanged yields when apps may have changed.
func (d *Directory) AppsChanged() <-chan struct{} { return d.node.apps }

// KeepApps reads the records of apps from a file, and from now on writes every change to it
// before it happens. The file is made with the first change. It is to be called before anything
// else is done with the store.
//
// The file is for one process at a time: if another has written it, further changes fail with
// directory.ErrUnavailable.
func (s *Store) KeepApps(path string) error {
	f := &appsFile{path: path}
	statefile.RemoveLeftovers(path)
	last, records, err := f.read()
	if err != nil {
		return fmt.Errorf("apps that were made at run time: %w", err)
	}
	s.apps.mu.Lock()
	defer s.apps.mu.Unlock()
	s.apps.file, s.apps.last, s.apps.records = f, last, records
	return nil
}

// CheckApps says what is wrong with a file for KeepApps, and leaves it alone.
func CheckApps(path string) error {
	_, _, err := (&appsFile{path: path}).read()
	return err
}

// appsFormat is the version of the file's format.
const appsFormat = 1

// maxAppsFile bounds what is read of a file, in bytes.
const maxAppsFile = 1 << 30

// appsFile is the file of a store's apps: one JSON object with the version of its format, the
// newest revision, and all records. It is replaced as a whole, so that it is always one state
// or the next.
type appsFile struct {
	path string
	info fs.FileInfo // of the file as it was last read or written; nil: there was none
}

type appsState struct {
	Format   int        `json:"format"`
	Revision uint64     `json:"revision"`
	Apps     []appEntry `json:"apps"`
}

type appEntry struct {
	ID       string          `json:"id"`
	Revision uint64          `json:"revision"`
	Data     json.RawMessage `json:"data"`
}

// read returns the state in the file; a file that is not there has none. Errors quote nothing
// of what is in it.
func (f *appsFile) read() (last uint64, records map[string]directory.App, err error) {
	file, err := os.Open(f.path)
	if statefile.IsNotThere(err) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	if f.info, err = file.Stat(); err != nil {
		return 0, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxAppsFile))
	if err != nil {
		return 0, nil, err
	}
	var head struct{ Format *int }
	if err := json.Unmarshal(text, &head); err != nil || head.Format == nil {
		return 0, nil, fmt.Errorf("%s is damaged, or is something else: restore it from a backup, or move it away to begin without such apps", f.path)
	}
	if *head.Format != appsFormat {
		return 0, nil, fmt.Errorf("%s has format %d, and this version knows format %d: it was written by another version of the server", f.path, *head.Format, appsFormat)
	}
	var state appsState
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&state); err != nil {
		return 0, nil, fmt.Errorf("%s has format %d, but not its fields: restore it from a backup", f.path, appsFormat)
	}
	records = make(map[string]directory.App, len(state.Apps))
	for _, a := range state.Apps {
		if _, twice := records[a.ID]; twice || a.ID == "" || a.Revision == 0 || a.Revision > state.Revision || len(a.Data) == 0 {
			return 0, nil, fmt.Errorf("%s contradicts itself: restore it from a backup", f.path)
		}
		var data bytes.Buffer
		if err := json.Compact(&data, a.Data); err != nil {
			return 0, nil, err
		}
		a.Data = data.Bytes()
		records[a.ID] = directory.App(a)
	}
	return state.Revision, records, nil
}

// write replaces the file, for its owner only. It reports whether the file has been replaced:
// with an error this may not survive a loss of power.
func (f *appsFile) write(last uint64, records map[string]directory.App) (replaced bool, err error) {
	if err := statefile.Unchanged(f.path, f.info); err != nil {
		return false, err
	}
	state := appsState{Format: appsFormat, Revision: last, Apps: make([]appEntry, 0, len(records))}
	for _, a := range sorted(records) {
		state.Apps = append(state.Apps, appEntry(a))
	}
	text, err := json.MarshalIndent(state, "", "\t")
	if err != nil {
		return false, err
	}
	info, replaced, err := statefile.Replace(f.path, append(text, '\n'))
	if replaced {
		f.info = info
	}
	return replaced, err
}
