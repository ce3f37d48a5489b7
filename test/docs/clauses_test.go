package docs

import (
	"cmp"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the tables of clauses in docs/protocol-coverage.md")

const (
	clauseList   = "docs/spec-items.txt"
	coveragePage = "docs/protocol-coverage.md"

	tablesBegin = "<!-- made by make spec from spec-items.txt and the code: do not edit -->\n"
	tablesEnd   = "<!-- end of what make spec made -->\n"
)

// clause is one line of the list.
type clause struct {
	subject, id, what string
	status            string // as it is printed
	met               bool   // at least in part, so that something must show it
}

func readClauses(t *testing.T) (all []clause) {
	t.Helper()
	subject := ""
	seen := make(map[string]bool)
	for i, line := range strings.Split(read(t, clauseList), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, ok := strings.CutPrefix(line, "== "); ok {
			subject = name
			continue
		}
		fields := strings.Split(line, " | ")
		if subject == "" || len(fields) < 2 || len(fields) > 3 || slices.Contains(fields, "") || strings.Count(line, "|") != len(fields)-1 {
			t.Fatalf("%s:%d: not a clause: %q", clauseList, i+1, line)
		}
		c := clause{subject: subject, id: fields[0], what: fields[1], status: "yes", met: true}
		if len(fields) == 3 {
			kind, why, _ := strings.Cut(fields[2], ": ")
			if !slices.Contains([]string{"part", "open", "client"}, kind) || why == "" {
				t.Fatalf("%s:%d: no status: %q", clauseList, i+1, fields[2])
			}
			c.status, c.met = fields[2], kind != "open"
		}
		if seen[c.id] || citation.FindString(c.id) != c.id {
			t.Errorf("%s:%d: %s is there twice, or no id", clauseList, i+1, c.id)
		}
		seen[c.id] = true
		if n := len(all); n > 0 && all[n-1].subject == subject && compareIDs(all[n-1].id, c.id) > 0 {
			t.Errorf("%s:%d: %s comes after %s", clauseList, i+1, all[n-1].id, c.id)
		}
		all = append(all, c)
	}
	return all
}

var idPart = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// compareIDs orders ids as the specification does: RTN2a, RTN2b, RTN15a.
func compareIDs(a, b string) int {
	return slices.CompareFunc(idPart.FindAllString(a, -1), idPart.FindAllString(b, -1), func(x, y string) int {
		m, err1 := strconv.Atoi(x)
		n, err2 := strconv.Atoi(y)
		if err1 == nil && err2 == nil {
			return cmp.Compare(m, n)
		}
		return cmp.Compare(x, y)
	})
}

// citation is an id of the specification, or a range of them: RSL4d1-3, CD2a-j. The prefixes
// are those of the specification.
var citation = regexp.MustCompile(`\b((?:AD|AO|BAR|BGF|BGR|BPF|BPR|BSP|CCR|CCRO|CD|CHD|CHM|CHO|CHS|CIN|CO|CP|CR|CSV|DE|DF|DO|` +
	`G|HP|MCL|MCR|MCRO|MFI|MRM|MST|OCN|OD|ODE|OM|OME|OMP|OOP|OST|PBR|PC|PCD|PCP|PCS|PT|REC|REX|` +
	`RSA|RSAN|RSC|RSE|RSF|RSH|RSL|RSN|RSP|RTAN|RTB|RTC|RTE|RTF|RTINS|RTL|RTLC|RTLCV|RTLM|RTLMV|RTLO|RTN|RTO|RTP|RTPO|RTS|` +
	`SUB|TA|TAN|TB|TC|TD|TE|TG|TH|TI|TK|TM|TN|TO|TP|TR|TRF|TRS|TRT|TS|TZ|UDR|VD|WP|WPO)` +
	`[0-9]+(?:[a-z]+[0-9]*)*)(?:-([a-z]|[0-9]+)\b)?`)

// citations are the files that cite each id.
type citations map[string][]string

// add notes the ids in a text. A range stands for what the list has of it, and so do its ends.
func (c citations) add(t *testing.T, listed map[string]bool, file, text string) {
	for _, m := range citation.FindAllStringSubmatch(text, -1) {
		first, to := m[1], m[2]
		if to == "" {
			c.note(first, file)
			continue
		}
		parts := idPart.FindAllString(first, -1)
		stem, last := strings.Join(parts[:len(parts)-1], ""), parts[len(parts)-1]
		if n := len(last); last[n-1] > '9' { // of several letters only the last one runs
			stem, last = stem+last[:n-1], last[n-1:]
		}
		from, err1 := strconv.Atoi(last)
		until, err2 := strconv.Atoi(to)
		each := strconv.Itoa
		if err1 != nil && err2 != nil {
			from, until = int(last[0]), int(to[0])
			each = func(i int) string { return string(rune(i)) }
		} else if err1 != nil || err2 != nil {
			from, until = 1, 0
		}
		if from >= until || !listed[stem+each(from)] || !listed[stem+each(until)] {
			t.Errorf("%s cites %s, which is no range", file, m[0])
			continue
		}
		for i := from; i <= until; i++ {
			if id := stem + each(i); listed[id] {
				c.note(id, file)
			}
		}
	}
}

func (c citations) note(id, file string) {
	if !slices.Contains(c[id], file) {
		c[id] = append(c[id], file)
	}
}

// readCitations returns what the comments of the code cite, and what the tests do.
func readCitations(t *testing.T, listed map[string]bool) (code, tests citations) {
	t.Helper()
	code, tests = make(citations), make(citations)
	for _, dir := range []string{"cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (slices.Contains([]string{"node_modules", "testdata"}, d.Name()) || path == filepath.Join(root, "test/docs")):
				return filepath.SkipDir
			case d.IsDir() || !slices.Contains([]string{".go", ".mjs", ".txt"}, filepath.Ext(path)):
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			file := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
			switch {
			case dir == "test" && d.Name() == "doc.go": // shows nothing
				return nil
			case dir == "test", strings.HasSuffix(path, "_test.go"):
				tests.add(t, listed, file, string(text))
				return nil
			}
			if filepath.Ext(path) != ".go" {
				return nil
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
			if err != nil {
				return err
			}
			for _, c := range parsed.Comments {
				code.add(t, listed, file, c.Text())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return code, tests
}

func TestClausesThatAreCitedAreListedAndThoseThatAreMetAreCited(t *testing.T) {
	clauses := readClauses(t)
	listed := make(map[string]bool, len(clauses))
	for _, c := range clauses {
		listed[c.id] = true
	}
	code, tests := readCitations(t, listed)
	if len(clauses) < 100 || len(code) < 100 || len(tests) < 20 {
		t.Fatalf("only %d clauses, of which %d are cited in the code and %d in tests", len(clauses), len(code), len(tests))
	}
	for _, cited := range []citations{code, tests} {
		for id, files := range cited {
			if !listed[id] {
				t.Errorf("%s is cited in %s, and not in %s: list it, or cite what it became", id, strings.Join(files, ", "), clauseList)
			}
		}
	}
	for _, c := range clauses {
		if c.met && len(code[c.id]) == 0 && len(tests[c.id]) == 0 {
			t.Errorf("%s is listed as %q, and cited nowhere: cite it where it is kept", c.id, c.status)
		}
	}

	made := tablesBegin + tables(clauses, code, tests) + tablesEnd
	page := read(t, coveragePage)
	before, rest, found1 := strings.Cut(page, tablesBegin)
	_, after, found2 := strings.Cut(rest, tablesEnd)
	if !found1 || !found2 {
		t.Fatalf("%s has no place for the tables", coveragePage)
	}
	switch {
	case page == before+made+after:
	case *update:
		if err := os.WriteFile(filepath.Join(root, coveragePage), []byte(before+made+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not that of the code and of %s: run make spec", coveragePage, clauseList)
	}
}

// tables are the clauses by subject, in Markdown.
func tables(clauses []clause, code, tests citations) string {
	var b strings.Builder
	count := make(map[string]int)
	for _, c := range clauses {
		kind, _, _ := strings.Cut(c.status, ":")
		count[kind]++
	}
	fmt.Fprintf(&b, "\n%d clauses: %d yes, %d part, %d client, %d open.\n", len(clauses), count["yes"], count["part"], count["client"], count["open"])
	subject := ""
	for _, c := range clauses {
		if c.subject != subject {
			subject = c.subject
			fmt.Fprintf(&b, "\n### %s\n\n| clause | what is owed | where | seen by | status |\n|---|---|---|---|---|\n", subject)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.id, c.what, files(code[c.id], "internal/"), files(tests[c.id], "internal/", "test/"), c.status)
	}
	b.WriteString("\n")
	return b.String()
}

// mostFiles is how many files a cell names.
const mostFiles = 3

// files is a cell that names files, without what they all begin with.
func files(paths []string, prefixes ...string) string {
	paths = slices.Clone(paths)
	more := ""
	if n := len(paths) - mostFiles; n > 1 {
		paths, more = paths[:mostFiles], fmt.Sprintf(" and %d more", n)
	}
	for i, p := range paths {
		for _, prefix := range prefixes {
			p = strings.TrimPrefix(p, prefix)
		}
		paths[i] = "`" + p + "`"
	}
	return strings.Join(paths, ", ") + more
}
