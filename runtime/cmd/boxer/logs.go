// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/config"
)

func logsCommand(g *globals) *cobra.Command {
	var follow, node bool
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a node's guest has written (NAME is a slot: store, logic-0)",
		Args:  exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			_, info, err := g.find()
			if err != nil {
				return err
			}
			if err := config.CheckName(args[0]); err != nil {
				return err
			}
			name := args[0] + ".log"
			if node {
				name = args[0] + ".node.log"
			}
			path := filepath.Join(info.Directory, "logs", name)
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("logs of %q: network %q has no log of that name; it has: %s", args[0], info.Name, logNames(filepath.Dir(path)))
			} else if err != nil {
				return fmt.Errorf("logs of %q: %w", args[0], err)
			}
			defer f.Close()
			return copyLog(c.Context(), c.OutOrStdout(), f, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "keep printing what is added, until interrupted")
	cmd.Flags().BoolVar(&node, "supervisor", false, "the node supervisor's own log instead of the guest's")
	return cmd
}

func logNames(dir string) string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".log"); ok && !strings.HasSuffix(name, ".node") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// copyLog prints f and, if follow, what is appended until ctx ends.
func copyLog(ctx context.Context, w io.Writer, f io.Reader, follow bool) error {
	for {
		if _, err := io.Copy(w, f); err != nil {
			return fmt.Errorf("print the log: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}
