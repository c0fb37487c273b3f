// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/loader"
	"github.com/boxer-overlay/boxer/runtime/pack"
)

func packCommand(g *globals) *cobra.Command {
	var o pack.Options
	var out string
	c := &cobra.Command{
		Use:   "pack [flags] [--] CMD [ARG...]",
		Short: "Pack an installed program for functions and VMs that lack it",
		Long: `Pack a program that is installed here, with its libraries, loader and libc and the
files of its own system package (dpkg; Python: the standard library), as a zip file
for the package attribute of boxer_function_node and boxer_vm_node. It runs from
/var/task wherever that is unpacked, also where libc is older or musl.

A script is packed with the interpreter of its first line. Arguments that name files
are packed too. What programs open by a fixed path outside /var/task, or run, cannot
be known: name it with --include, and tell the program where it is then.

What to put into the configuration is printed. Exit status: 0, or 125 with nothing
written; 126 if CMD is no program, 127 if there is none.`,
		Example: `  boxer pack redis-server -o redis.zip
  boxer pack -o site.zip --include www -- nginx -p /tmp -c nginx.conf
  boxer pack -o app.zip -- python3 app.py --port 8080`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("want 'boxer %s', got no command; see '%s --help'", c.Use, c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Argv, o.Path = args, os.Getenv("PATH")
			if out == "" {
				out = filepath.Base(args[0]) + ".zip"
			}
			p, err := pack.Collect(o)
			if err == nil {
				err = p.CheckSize()
			}
			if err != nil {
				return notRunnable(err)
			}
			size, err := writePackage(p, out)
			if err != nil {
				return err
			}
			for _, note := range p.Notes {
				fmt.Fprintln(c.ErrOrStderr(), "boxer: "+note)
			}
			if g.json {
				return printJSON(c.OutOrStdout(), packed{
					Package: out, Size: size, Unpacked: p.Size(), Command: p.Command, Environment: p.Environment,
					Architecture: p.Architecture, Files: len(p.Files), Libraries: p.Libraries, Notes: append([]string{}, p.Notes...),
				})
			}
			showPackage(c.OutOrStdout(), p, out, size)
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "zip file to write (default: CMD.zip)")
	c.Flags().StringArrayVar(&o.Include, "include", nil, "PATH or PATH:PLACE, a file or directory to pack too, at PLACE below /var/task (repeatable)")
	c.Flags().BoolVar(&o.NoData, "no-data", false, "leave out the files of the program's system package")
	return c
}

// packed is what --json prints.
type packed struct {
	Package      string            `json:"package"`
	Size         int64             `json:"size"`
	Unpacked     int64             `json:"unpacked"`
	Files        int               `json:"files"`
	Architecture string            `json:"architecture"`
	Command      []string          `json:"command"`
	Environment  map[string]string `json:"environment"`
	Libraries    []pack.Library    `json:"libraries"`
	Notes        []string          `json:"notes"`
}

// notRunnable gives errors about the command the exit status that shells give.
func notRunnable(err error) error {
	switch {
	case errors.Is(err, pack.ErrNotFound):
		return &exitError{127, err}
	case errors.Is(err, pack.ErrNotProgram), errors.Is(err, loader.ErrNotELF):
		return &exitError{126, err}
	}
	return err
}

func writePackage(p *pack.Package, path string) (int64, error) {
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return 0, fmt.Errorf("write %s: %w: give -o a file that can be written", path, err)
	}
	defer func() { _ = file.Cleanup() }() // nothing is left once it was renamed
	if err := p.Write(file); err != nil {
		return 0, err
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		err = file.CloseAtomicallyReplace()
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	return size, nil
}

func showPackage(out io.Writer, p *pack.Package, name string, size int64) {
	fmt.Fprintf(out, "%s: %s, %s in %d files unpacked (a function may have %d MB)\n\n",
		name, megabytes(size), megabytes(p.Size()), len(p.Files), (pack.Limit-pack.LayerShare)>>20)
	list := table{columns: []column{{title: "SIZE"}, {title: "BIGGEST"}}}
	for _, f := range p.Biggest(5) {
		if f.Size > 50_000 || len(list.rows) == 0 {
			list.rows = append(list.rows, []string{megabytes(f.Size), f.Name})
		}
	}
	for _, line := range list.lines(widthOf(out)) {
		fmt.Fprintln(out, line)
	}
	fmt.Fprintf(out, "\nIn a boxer_function_node or boxer_vm_node:\n\n%s", hcl(name, p.Command, p.Environment))
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }

// hcl is what to write into a node's resource.
func hcl(packageFile string, command []string, environment map[string]string) string {
	var b strings.Builder
	if packageFile != "" {
		fmt.Fprintf(&b, "  package = %s\n", hclString(packageFile))
	}
	words := make([]string, len(command))
	for i, word := range command {
		words[i] = hclString(word)
	}
	fmt.Fprintf(&b, "  command = [%s]\n", strings.Join(words, ", "))
	if len(environment) > 0 {
		var list []string
		for name, value := range environment {
			list = append(list, name+" = "+hclString(value))
		}
		slices.Sort(list)
		fmt.Fprintf(&b, "  environment = { %s }\n", strings.Join(list, ", "))
	}
	return b.String()
}

// hclString quotes text: what would be a template is none.
func hclString(text string) string {
	replaced := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "${", "$${", "%{", "%%{").Replace(text)
	return `"` + replaced + `"`
}
