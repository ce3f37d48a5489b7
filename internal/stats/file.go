package stats

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"letshare-server/internal/statefile"
)

// fileFormat is the version of the format of Keep's file.
const fileFormat = 1

// maxFile bounds what is read of a file, in bytes: several times what may be written.
const maxFile = 1 << 30

// fileState is a file of statistics: one JSON object.
type fileState struct {
	Format int                   `json:"format"`
	Apps   map[string][][]fileAt `json:"apps"` // for each app the levels from Minute on
}

// fileAt is one interval: its start, in minutes since the epoch, and the Record, in base64.
type fileAt struct {
	Start  int64  `json:"t"`
	Record Record `json:"r"`
}

// Keep reads what a file has, and from now on Save writes to it. The file is made then. It is to be called before anything else is done with s, and is for one process at a time.
func (s *Memory) Keep(path string) error {
	statefile.RemoveLeftovers(path)
	state, file, err := readFile(path)
	if err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for app, levels := range state.Apps {
		h := s.openLocked(app)
		for u, level := range levels {
			for _, at := range level {
				k := kept{start: at.Start, record: at.Record}
				h.levels[u] = append(h.levels[u], k)
				s.grewLocked(h, k.size())
			}
		}
		s.trimLocked(h)
	}
	s.path, s.file = path, file
	return nil
}

// CheckFile says what is wrong with a file for Keep, and leaves it alone.
func CheckFile(path string) error {
	_, _, err := readFile(path)
	return err
}

// readFile returns what is in a file, which is valid; a file that is not there has nothing.
func readFile(path string) (state fileState, info os.FileInfo, err error) {
	file, err := os.Open(path)
	if statefile.IsNotThere(err) {
		return state, nil, nil
	}
	if err != nil {
		return state, nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return state, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return state, nil, err
	}
	damaged := fmt.Errorf("%s is damaged, or is something else: restore it from a backup, or move it away to begin anew", path)
	var head struct{ Format *int }
	if json.Unmarshal(text, &head) != nil || head.Format == nil {
		return state, nil, damaged
	}
	if *head.Format != fileFormat {
		return state, nil, fmt.Errorf("%s has format %d, and this version knows format %d: it was written by another version of the server", path, *head.Format, fileFormat)
	}
	if json.Unmarshal(text, &state) != nil {
		return state, nil, damaged
	}
	for _, levels := range state.Apps {
		if len(levels) > int(units) {
			return state, nil, damaged
		}
		for u, level := range levels {
			for i, at := range level {
				if _, err := at.Record.Totals(); err != nil || i > 0 && at.Start <= level[i-1].Start || at.Start != At(Unit(u), time.Unix(at.Start*60, 0)).start {
					return state, nil, damaged
				}
			}
		}
	}
	return state, info, nil
}

// Save writes all to the file of Keep, if there is one and something has changed since.
func (s *Memory) Save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.path == "" {
		return nil
	}
	state := fileState{Format: fileFormat, Apps: make(map[string][][]fileAt)}
	s.mu.Lock()
	changed := s.changed
	if changed {
		for app, h := range s.apps {
			levels := make([][]fileAt, units)
			for u, level := range h.levels {
				for _, k := range level {
					levels[u] = append(levels[u], fileAt{k.start, k.record}) // records are immutable
				}
			}
			state.Apps[app] = levels
		}
	}
	s.changed = false
	s.mu.Unlock()
	if !changed {
		return nil
	}
	err := s.write(&state)
	if err != nil {
		s.mu.Lock()
		s.changed = true
		s.mu.Unlock()
	}
	return err
}

func (s *Memory) write(state *fileState) error {
	if err := statefile.Unchanged(s.path, s.file); err != nil {
		return err
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	info, replaced, err := statefile.Replace(s.path, text)
	if replaced {
		s.file = info
	}
	return err
}
