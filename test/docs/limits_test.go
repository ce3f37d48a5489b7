package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"letshare-server/internal/limit"
)

func TestThePageAboutLimitsKnowsEachAndItsTests(t *testing.T) {
	page := read(t, "docs/operations/limits.md")
	for n := range limit.Names {
		if !strings.Contains(page, "`"+n.String()+"`") {
			t.Errorf("%s is not described", n)
		}
	}
	var code strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(page, -1)
	for _, m := range names {
		if !strings.Contains(code.String(), "func "+m[1]+"(") {
			t.Errorf("there is no %s", m[1])
		}
	}
	transcripts := regexp.MustCompile("`([a-z-]+[.]txt)`").FindAllStringSubmatch(page, -1)
	for _, m := range transcripts {
		if _, err := os.Stat(filepath.Join(root, "test/transcripts", m[1])); err != nil {
			t.Error(err)
		}
	}
	if len(names) < 20 || len(transcripts) < 5 {
		t.Errorf("%d tests and %d transcripts are named", len(names), len(transcripts))
	}
}
