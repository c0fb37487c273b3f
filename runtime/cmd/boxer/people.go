// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import "github.com/spf13/cobra"

// peopleCommands are those that only people use. With the tag cli they are in the
// boxer that users type; the one in the layers, whose size counts, is without.
func peopleCommands(g *globals) []*cobra.Command {
	return []*cobra.Command{checkCommand(g), dashboardCommand(g), hookCommand(g), iamPolicyCommand(g), layersCommand(g), packCommand(g), planCapacityCommand(g)}
}
