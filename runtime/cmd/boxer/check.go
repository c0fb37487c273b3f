// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/guestcheck"
	"github.com/boxer-overlay/boxer/runtime/pack"
)

func init() {
	if len(os.Args) > 2 && os.Args[1] == guestcheck.InsideVerb {
		guestcheck.Inside(os.Args[2:])
	}
}

// exitNoGuest is the exit status of boxer check for a program that cannot be a guest.
const exitNoGuest = 1

func checkCommand(g *globals) *cobra.Command {
	var kind string
	var run time.Duration
	c := &cobra.Command{
		Use:   "check [flags] [--] CMD [ARG...]",
		Short: "Say whether a program can be a guest, and run on a function",
		Long: `Look at a program that is installed here, its libraries and arguments. Say if it can
be a guest on a VM and on a function (yes, after changes, no), what is in the way,
and what to do about it.

Nothing is run, unless with --run: then the program itself runs for a while in
namespaces of its own, without privileges or a network, with only /tmp to write to,
and what it did is reported too: ports, memory, going to the background.

It is a look from outside: a program may still do at run time what nothing shows.

Exit status: 0 if it can be a guest, perhaps after changes; 1 if it cannot, on one
of the kinds asked about (--kind); 125 Boxer failed, 126 CMD is no program, 127 it
was not found.`,
		Example: `  boxer check redis-server
  boxer check --run 3s -- nginx -p /tmp -c nginx.conf -g 'daemon off;'
  boxer check --kind function --json ./app.py`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("want 'boxer %s', got no command; see '%s --help'", c.Use, c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(checkedKinds, kind) {
				return fmt.Errorf("check %s: --kind %q: want one of vm, function, any", args[0], kind)
			}
			o, err := checkOptions(args)
			if err != nil {
				return notRunnable(err)
			}
			if run > 0 {
				if o.Measured, err = guestcheck.Run(c.Context(), append([]string{o.Program}, o.Args...), run); err != nil {
					return err
				}
			}
			r, err := guestcheck.Check(o)
			if err != nil {
				return notRunnable(err)
			}
			if g.json {
				err = printJSON(c.OutOrStdout(), r)
			} else {
				showReport(c.OutOrStdout(), r, args)
			}
			if err == nil && (kind != "function" && r.VM == guestcheck.Cannot || kind != "vm" && r.Function == guestcheck.Cannot) {
				err = &exitError{exitNoGuest, nil}
			}
			return err
		},
	}
	c.Flags().StringVar(&kind, "kind", "any", "kind of node that the exit status is about: vm, function or any")
	c.Flags().DurationVar(&run, "run", 0, "run the program that long, such as 3s, and say what it did")
	completeFlags(c, map[string]completer{"kind": words(checkedKinds...)})
	return c
}

var checkedKinds = []string{"vm", "function", "any"}

// checkOptions finds the program, and the interpreters of a script.
func checkOptions(args []string) (guestcheck.Options, error) {
	o := guestcheck.Options{Args: args[1:]}
	var err error
	if o.Program, err = pack.Find(args[0], os.Getenv("PATH")); err != nil {
		return o, err
	}
	if o.Program, err = filepath.Abs(o.Program); err != nil {
		return o, err
	}
	const nested = 4 // as many as Linux follows
	for script, i := o.Program, 0; ; i++ {
		name, err := guestcheck.Interpreter(script)
		if err != nil || name == "" {
			return o, err
		}
		if i == nested {
			return o, fmt.Errorf("%s: %w: too many interpreters one after the other: name the program that runs it", args[0], pack.ErrNotProgram)
		}
		if script, err = pack.Find(name, os.Getenv("PATH")); err != nil {
			return o, fmt.Errorf("%s: the interpreter of its first line: %w", args[0], err)
		}
		o.Interpreter = script
	}
}

var verdicts = map[guestcheck.Weight]string{"": "yes", guestcheck.Note: "yes", guestcheck.Change: "after changes", guestcheck.Cannot: "no"}

func showReport(out io.Writer, r *guestcheck.Report, args []string) {
	what := "ELF, "
	if r.Interpreter != "" {
		what = "script of " + r.Interpreter + ", "
	}
	what += r.Architecture
	switch r.Libc {
	case "glibc":
		what += ", glibc " + r.Glibc + " or newer"
	case "musl":
		what += ", musl"
	}
	fmt.Fprintf(out, "%s: %s, %s with libraries\n\n", r.Program, what, megabytes(r.Size))
	if m := r.Measured; m != nil {
		ports := "no ports"
		if len(m.Ports) > 0 {
			ports = "ports " + strings.Trim(fmt.Sprint(m.Ports), "[]")
		}
		fmt.Fprintf(out, "Ran %.1f s: %s, %s, %d MB of memory\n\n", m.Seconds, ports, counted(m.Tasks, "task"), m.MemoryMB)
	}
	t := table{columns: []column{{title: "FINDING"}, {title: "VM", fixed: true}, {title: "FUNCTION", fixed: true}}}
	t.rows = append(t.rows, []string{"can be a guest", verdicts[r.VM], verdicts[r.Function]})
	for _, f := range r.Findings {
		t.rows = append(t.rows, []string{f.Name, dash(string(f.VM)), dash(string(f.Function))})
	}
	width := widthOf(out)
	for _, line := range t.lines(width) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintln(out)
	for _, f := range r.Findings {
		fmt.Fprintln(out, wrapped(f.Name+": "+f.Reason+" "+f.Remedy, width))
	}
	if r.VM != guestcheck.Cannot {
		fmt.Fprintf(out, "\nIn a boxer_vm_node or boxer_function_node, on a local network:\n\n%s", hcl("", r.Command, nil))
		if r.Measured != nil && r.Measured.Exit == nil {
			fmt.Fprintf(out, "  memory_size = %d # of a function: measured, and as much again\n", memorySize(r.Measured.MemoryMB))
		}
		fmt.Fprintf(out, "\nFor AWS as boxer pack prints them: boxer pack -o %s.zip -- %s\n", filepath.Base(args[0]), shellWords(append(args[:1:1], r.Command[1:]...)))
	}
}

// memorySize is enough for twice what was measured, and the supervisor.
func memorySize(mb int) int {
	const step, least, most, supervisor = 64, 128, 10240, 32
	return min(max((2*mb+supervisor+step-1)/step*step, least), most)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// wrapped breaks text into lines, those after the first one indented.
func wrapped(text string, width int) string {
	if width <= 0 || width > 96 {
		width = 96
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case at+1+len(word) > width:
			b.WriteString("\n  ")
			at = 2
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}

// shellWords are words as a shell reads them.
func shellWords(list []string) string {
	quoted := make([]string, len(list))
	for i, word := range list {
		quoted[i] = word
		if word == "" || strings.ContainsFunc(word, func(r rune) bool {
			return !strings.ContainsRune("-_./:=,+%@", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
		}) {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
