// SPDX-License-Identifier: Apache-2.0

package boxer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestTroubleshootingMessages: a message that users search for in
// docs/troubleshooting.md is one that the code can still say.
func TestTroubleshootingMessages(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	said := messages(t)
	headings := regexp.MustCompile("(?m)^### `(.+)`(.*)$").FindAllStringSubmatch(string(page), -1)
	if len(headings) < 20 || len(headings) != strings.Count(string(page), "\n### ") {
		t.Errorf("%d messages: each heading of the third level is one, in backquotes", len(headings))
	}
	for _, h := range headings {
		if strings.Contains(h[2], "in a guest") || strings.Contains(h[2], "from terraform") {
			continue // libc's words, or terraform's
		}
		if !anySays(said, h[1]) {
			t.Errorf("docs/troubleshooting.md: nothing says %q any more: correct the page", h[1])
		}
	}
}

// anySays: one of the messages has the fixed parts of want, in their order; what
// is between them is a verb of fmt.
func anySays(said []string, want string) bool {
	var pattern strings.Builder
	letters := 0
	for i, part := range strings.Split(want, "…") {
		if i > 0 {
			pattern.WriteString(`"?%[+#0-9]*[a-z]"?`)
		}
		letters += len(part)
		pattern.WriteString(regexp.QuoteMeta(part))
	}
	if letters < 10 {
		return false // would be anywhere
	}
	// At its ends a heading may leave something out.
	expression := regexp.MustCompile(strings.TrimSuffix(strings.TrimPrefix(pattern.String(), `"?`), `"?`))
	for _, s := range said {
		if expression.MatchString(s) {
			return true
		}
	}
	return false
}

// messages are the string literals of all Go code but tests, parts that are added
// up as one, and the lines of the bootstrap scripts.
func messages(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case strings.HasPrefix(path, "layer/") && !strings.HasSuffix(path, ".go") && !d.IsDir():
			text, err := os.ReadFile(path)
			all = append(all, strings.Split(string(text), "\n")...)
			return err
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s, ok := literal(e); ok {
					all = append(all, s)
					return false
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// literal is the value of a string literal or a sum of them.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		a, ok := literal(e.X)
		if !ok || e.Op != token.ADD {
			return "", false
		}
		b, ok := literal(e.Y)
		return a + b, ok
	}
	return "", false
}

// TestLinks: what the pages point to is there.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	guides, _ := filepath.Glob("docs/guides/*.md")
	pages = append(append(pages, guides...), "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(string(text), -1) {
			target, err := url.Parse(m[1])
			if err != nil || target.Scheme != "" || target.Path == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), target.Path)); err != nil {
				t.Errorf("%s points to %s: %v", page, m[1], err)
			}
		}
	}
}
