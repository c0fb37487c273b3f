// SPDX-License-Identifier: Apache-2.0

package boxer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A message names what failed, on what, why, and what to do. Of that a test can
// hold the form: none is a trace or a failed format, none ends with another's bare
// words, and each says what to do.
var (
	neverSaid = regexp.MustCompile(`(?i)unexpected|goroutine|panic:|%!|<nil>|\bnil pointer|\.go:[0-9]+|\b0x[0-9a-f]{6,}|strconv\.|json: |not implemented|internal error`)
	// bareEnd: the words of Go or of the kernel come last, so nothing is said of what to do.
	bareEnd = regexp.MustCompile(`(^|: |\()(EOF|exit status [0-9]+|signal: [a-z]+|no such file or directory|permission denied|operation not permitted|` +
		`connection refused|connection reset by peer|broken pipe|invalid argument|file exists|not a directory|is a directory|no space left on device|` +
		`read-only file system|device or resource busy|i/o timeout|context (canceled|deadline exceeded)|use of closed .*|too many open files|invalid syntax|address already in use)[.)]?$`)
	// A clause that begins so tells what to do, or what is wanted. One that others
	// follow after a colon is what was being done.
	toDo = regexp.MustCompile(`^(?i)(?:or |and |then |please |"[^"]*" |of them |element [0-9]+ )*(add|apply|ask|build|change|check|choose|chmod|copy|correct|create|delete|did you mean|do it|forget|free|` +
		`give|import|install|keep|leave|make|move|name|pack|publish|put|raise|reach|read|remove|rename|replac|restore|run|see|set|start|stop|try again|use|want|wait|write)`)
	wanted  = regexp.MustCompile(`\bwant\b|Give --network|; choose (one|a port) [a-z ]*: |must be (one of|between|at least)|"boxer [a-z]+ .*" (lists|shows?|may say)|'boxer [a-z]+ `)
	clauses = regexp.MustCompile(`: |; |, (?:or )?|\. |\? |\n+| \(|$`)
)

// saysWhatToDo: one of the clauses of message does.
func saysWhatToDo(message string) bool {
	if wanted.MatchString(message) {
		return true
	}
	begin := 0
	for _, at := range clauses.FindAllStringIndex(message, -1) {
		if clause := message[begin:at[0]]; message[at[0]:at[1]] != ": " && toDo.MatchString(clause) {
			return true
		}
		begin = at[1]
	}
	return false
}

// formOf is what is wrong with the form of a message.
func formOf(message string) (faults []string) {
	if found := neverSaid.FindString(message); found != "" {
		faults = append(faults, "says "+found)
	}
	last := message
	if i := strings.LastIndexByte(strings.TrimRight(message, "\n"), '\n'); i >= 0 {
		last = message[i+1:]
	}
	if found := bareEnd.FindString(strings.TrimSpace(last)); found != "" {
		faults = append(faults, "ends with another's words: "+found)
	}
	if !saysWhatToDo(message) {
		faults = append(faults, "does not say what to do")
	}
	return faults
}

// TestMessages reads every message that the tests expect: of the command line, of
// its transcripts, and of the provider.
func TestMessages(t *testing.T) {
	said := map[string][]string{}
	collect := func(pattern string, from func(string) []string) {
		t.Helper()
		found := 0
		for _, path := range textsBelow(t, pattern) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			said[path] = from(string(text))
			found += len(said[path])
		}
		if found < 10 {
			t.Errorf("%s: only %d messages", pattern, found)
		}
	}
	collect("runtime/e2e/testdata/golden", failedCommand)
	collect("runtime/e2e/testdata/script", transcript)
	collect("provider/testdata/golden", diagnostics)
	for path, messages := range said {
		for _, m := range messages {
			for _, fault := range formOf(m) {
				t.Errorf("%s: %s:\n%s", path, fault, m)
			}
			if first, _, many := strings.Cut(m, "\n"); strings.HasPrefix(m, "boxer: ") && !many && strings.HasSuffix(first, ".") {
				t.Errorf("%s: a line of an error ends without a full stop:\n%s", path, m)
			}
		}
	}
}

func textsBelow(t *testing.T, dir string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".txt") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// failedCommand is what a command that failed said on standard error.
func failedCommand(golden string) []string {
	_, stderr, found := strings.Cut(golden, "\nstderr:\n")
	if !found {
		return nil
	}
	return []string{strings.TrimSpace(stderr)}
}

var (
	scriptExpects = regexp.MustCompile(`(?m)^exits ([1-9][0-9]*) .*\n(?:stdout .*\n|cmp stdout .*\n|! stdout .*\n)*cmp stderr (\S+)$`)
	scriptFile    = regexp.MustCompile(`(?m)^-- (\S+) --\n`)
)

// transcript is what the failed commands of a script must say on standard error.
func transcript(script string) (said []string) {
	files := map[string]string{}
	marks := scriptFile.FindAllStringSubmatchIndex(script, -1)
	for i, m := range marks {
		end := len(script)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		files[script[m[2]:m[3]]] = strings.TrimSpace(script[m[1]:end])
	}
	for _, m := range scriptExpects.FindAllStringSubmatch(script, -1) {
		if text := files[m[2]]; strings.HasPrefix(text, "boxer: ") {
			said = append(said, text)
		}
	}
	return said
}

// diagnostics are what terraform shows of the provider's errors.
func diagnostics(golden string) (said []string) {
	for d := range strings.SplitSeq(golden, "\n---\n") {
		if strings.HasPrefix(d, "error: ") || strings.HasPrefix(d, "text: ") {
			_, detail, found := strings.Cut(d, "\n\n") // below what terraform shows of the configuration
			if !found {
				detail = d
			}
			said = append(said, strings.TrimSpace(detail))
		}
	}
	return said
}

// TestMessagesInCode: no message of the code itself has what none may have, and an
// error begins and ends as one that others are wrapped around.
func TestMessagesInCode(t *testing.T) {
	count := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || f.Sel.Name != "Errorf" && f.Sel.Name != "AddError" && f.Sel.Name != "AddAttributeError" && f.Sel.Name != "New" {
				return true
			}
			for _, arg := range call.Args {
				s, ok := literal(arg)
				if !ok || s == "" {
					continue
				}
				count++
				if found := regexp.MustCompile(`(?i)unexpected|internal error|not implemented|failed to |oops|should not happen`).FindString(s); found != "" {
					t.Errorf("%s: %q says %q", set.Position(arg.Pos()), s, found)
				}
				if f.Sel.Name == "Errorf" && strings.HasSuffix(s, ".") {
					t.Errorf("%s: %q ends with a full stop", set.Position(arg.Pos()), s)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count < 200 {
		t.Errorf("only %d messages found", count)
	}
}
