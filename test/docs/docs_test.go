// Package docs keeps the documentation true: what it quotes is what is there.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"letshare-server/internal/config"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// blocks are the fenced blocks of a page, each with its language in front.
func blocks(page string) (all []string) {
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		all = append(all, m[1]+"\n"+m[2])
	}
	return all
}

func TestBothREADMEsHaveTheSameStructureAndTheSameCode(t *testing.T) {
	english, chinese := read(t, "README.md"), read(t, "README.zh-CN.md")
	levels := func(page string) (all []string) {
		for _, line := range strings.Split(fence.ReplaceAllString(page, ""), "\n") {
			if strings.HasPrefix(line, "#") {
				all = append(all, line[:strings.IndexByte(line, ' ')])
			}
		}
		return all
	}
	if a, b := levels(english), levels(chinese); !slices.Equal(a, b) {
		t.Errorf("headings differ:\n%q\n%q", a, b)
	}
	a, b := blocks(english), blocks(chinese)
	if len(a) == 0 || len(a) != len(b) {
		t.Fatalf("%d and %d code blocks", len(a), len(b))
	}
	comment := regexp.MustCompile(`(?m)(^|\s)(#|//) ?\S.*$`) // is translated
	for i := range a {
		if comment.ReplaceAllString(a[i], "") != comment.ReplaceAllString(b[i], "") {
			t.Errorf("code block %d differs:\n%s\n%s", i+1, a[i], b[i])
		}
	}
}

func TestTheREADMEQuotesTheExamplesExactly(t *testing.T) {
	quoted := blocks(read(t, "README.md"))
	for path, language := range map[string]string{
		"examples/js/main.mjs": "js", "examples/go/main.go": "go", "examples/python/main.py": "python",
	} {
		if !slices.Contains(quoted, language+"\n"+read(t, path)) {
			t.Errorf("README.md does not quote %s as it is", path)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadToFilesAndHeadingsThatExist(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"node_modules", ".git"}, d.Name()) {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(page), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			checked++
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				if info, statErr := os.Stat(file); statErr != nil || !info.IsDir() {
					t.Errorf("%s links to %s: %v", path, m[1], err)
				}
				continue
			}
			if anchor != "" && !slices.Contains(anchors(string(text)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
		}
		return nil
	})
	if err != nil || checked == 0 {
		t.Fatalf("%d links checked: %v", checked, err)
	}
}

// anchors are the ids that GitHub gives a page's headings.
func anchors(page string) (all []string) {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, line := range strings.Split(fence.ReplaceAllString(page, ""), "\n") {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			all = append(all, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-"))
		}
	}
	return all
}

func TestEverySettingIsDocumentedWithItsDefault(t *testing.T) {
	var defaults map[string]any
	if err := yaml.Unmarshal([]byte(config.DefaultYAML(config.Local)), &defaults); err != nil {
		t.Fatal(err)
	}
	page := read(t, "docs/operations/configuration.md")
	rows := make(map[string]string)
	for _, line := range strings.Split(page, "\n") {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") && len(cells) >= 4 {
			rows[strings.Trim(cells[0], "| `")] = cells[2]
		}
	}
	count := 0
	var walk func(prefix string, value any)
	walk = func(prefix string, value any) {
		if section, ok := value.(map[string]any); ok {
			for name, v := range section {
				walk(strings.TrimPrefix(prefix+"."+name, "."), v)
			}
			return
		}
		count++
		cell, ok := rows[prefix]
		if !ok {
			t.Errorf("%s is not documented", prefix)
			return
		}
		delete(rows, prefix)
		want := fmt.Sprint(value)
		if list, ok := value.([]any); ok {
			want = ""
			if len(list) > 0 {
				want = fmt.Sprint(list[0])
			}
		}
		if want != "" && !strings.Contains(cell, "`"+want+"`") {
			t.Errorf("%s: the page says its default is %s, it is %s", prefix, cell, want)
		}
	}
	walk("", defaults)
	if count < 20 {
		t.Errorf("only %d settings found", count)
	}
	for name := range rows {
		if strings.Contains(name, ".") && !strings.Contains(name, "[") {
			t.Errorf("%s is documented, but is no setting", name)
		}
	}
}
