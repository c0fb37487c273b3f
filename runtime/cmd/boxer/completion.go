// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// completeTime bounds what a press of the tab key may wait for.
const completeTime = 2 * time.Second

// completer offers words for an argument or a flag.
type completer = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// words are fixed ones.
func words(list ...string) completer {
	return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
}

// first completes the first argument, and nothing else.
func first(look func(c *cobra.Command) []string) completer {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return look(c), cobra.ShellCompDirectiveNoFileComp
	}
}

// networks are the names of those there are.
func (g *globals) networks(*cobra.Command) []string {
	s, err := g.store()
	if err != nil {
		return nil
	}
	all, err := s.Networks()
	if err != nil {
		return nil
	}
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = n.Name
	}
	return names
}

// names asks the network that is meant for names of its members.
func (g *globals) names(c *cobra.Command, of func(cluster.Member) []string) []string {
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	info, err := g.running(ctx)
	if err != nil {
		return nil
	}
	session, err := launch.Observe(ctx, info)
	if err != nil {
		return nil
	}
	defer session.Close()
	var names []string
	for _, m := range session.Members() {
		if m.Kind != config.KindSeed {
			names = append(names, of(m)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// reachable names: nodes and services.
func (g *globals) reachable(c *cobra.Command) []string {
	return g.names(c, func(m cluster.Member) []string { return []string{m.Slot, m.Service} })
}

// stoppable names: nodes of the platform, and functions with all their slots.
func (g *globals) stoppable(c *cobra.Command) []string {
	return g.names(c, func(m cluster.Member) []string {
		if m.Kind == config.KindClient {
			return nil
		}
		return []string{m.Slot, m.Name}
	})
}

// logged names: those that have logs, also of nodes that ended.
func (g *globals) logged(*cobra.Command) []string {
	_, info, err := g.find()
	if err != nil {
		return nil
	}
	return logSlots(filepath.Join(info.Directory, "logs"))
}

// logSlots are the names that have logs in a directory.
func logSlots(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".log"); ok && !strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	return names // in order, as ReadDir gives them
}

// functions are the names of those there are.
func (g *globals) functions(c *cobra.Command) []string {
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	s, info, err := g.find()
	if err != nil || !info.Alive {
		return nil
	}
	client, err := s.Connect(ctx, info.Name)
	if err != nil {
		return nil
	}
	defer client.Close()
	all, err := client.Functions(ctx)
	if err != nil {
		return nil
	}
	return functionNames(all)
}

func functionNames(all []localcloud.Function) []string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.Name
	}
	return names
}

// completeFlags offers words for the values of flags. They are registered by
// name, which cannot fail for flags that exist.
func completeFlags(c *cobra.Command, by map[string]completer) {
	for name, complete := range by {
		if err := c.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err)
		}
	}
}
