// SPDX-License-Identifier: Apache-2.0

//go:build !cli

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// peopleCommands say where those commands are that this build, a node's, is without.
func peopleCommands(*globals) []*cobra.Command {
	var list []*cobra.Command
	for _, name := range []string{"dashboard", "hook", "plan-capacity", "check", "pack", "iam-policy", "layers"} {
		list = append(list, &cobra.Command{
			Use: name, Hidden: true, DisableFlagParsing: true,
			Short:   "In the boxer of the command line only",
			Example: "  boxer " + name,
			RunE: func(c *cobra.Command, _ []string) error {
				return fmt.Errorf("this boxer is the one that nodes run, without %q: use the boxer of the release archive (boxer_VERSION_linux_ARCH.tar.gz), or bin/boxer after make build", c.CommandPath())
			},
		})
	}
	return list
}
