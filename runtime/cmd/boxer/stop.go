// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// slotOf splits the slot of a function node into its function and number.
var slotOf = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(.+)-[0-9]+$`) })

func stopCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "stop NAME",
		Short: "Stop a node: a vm, a function with all its slots, or one slot",
		Long: `Stop a node: a vm, a function with all its slots, or one slot of a function. Its
guest gets TERM and ten seconds to end, then KILL.

A slot of a function whose number of replicas is kept (Terraform, boxer scale) is
started again at once: this is a restart of it. Another node that Terraform declares
comes back with the next apply.

With --platform aws replicas of functions can be stopped: they leave when their
connections have ended. What else runs there is for Terraform to say.`,
		Example: `  boxer stop store
  boxer stop logic-1`,
		Args:              exactArgs(1),
		ValidArgsFunction: first(g.stoppable),
		RunE: func(c *cobra.Command, args []string) error {
			end := g.stopHere
			if g.platform == platformAWS {
				end = g.stopOnAWS
			}
			if err := end(c.Context(), args[0]); err != nil {
				return err
			}
			if g.json {
				return printJSON(c.OutOrStdout(), map[string]string{"name": args[0], "state": "stopped"})
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is stopped\n", args[0])
			return nil
		},
	}
}

// stopHere stops a node of a local network.
func (g *globals) stopHere(ctx context.Context, name string) error {
	store, info, err := g.find()
	if err != nil {
		return err
	}
	if err := checkAlive(info); err != nil {
		return fmt.Errorf("stop %q: %w", name, err)
	}
	client, err := store.Connect(ctx, info.Name)
	if err != nil {
		return err
	}
	w := waiting(fmt.Sprintf("the guest of %s to end", name))
	defer w.done()
	return goesOn(ctx, stop(ctx, client, info, name), stopGoesOn)
}

// stopGoesOn is what becomes of a node that was asked to end.
const stopGoesOn = "its guest is ended all the same: see 'boxer nodes'"

func stop(ctx context.Context, client *localcloud.Client, info localcloud.NetworkInfo, name string) error {
	_, err := client.Host(ctx, name)
	if err == nil {
		return client.StopHost(ctx, name)
	} else if !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	f, err := client.Function(ctx, name)
	if err == nil {
		if f.Declared != nil { // the seed would launch it again
			l := launch.Launcher{Network: info, Client: client}
			if _, err := l.Remove(ctx, name, false); err != nil {
				return fmt.Errorf("stop %q: its number of replicas is still kept: %w", name, err)
			}
		}
		return client.StopFunction(ctx, name)
	} else if !errors.Is(err, localcloud.ErrNotFound) {
		return err
	}
	if m := slotOf().FindStringSubmatch(name); m != nil {
		if _, err := client.Function(ctx, m[1]); err == nil {
			return client.StopInvocation(ctx, m[1], name)
		}
	}
	network := info.Name
	return fmt.Errorf("stop %q: network %q runs no node of that name; see 'boxer nodes --network %s' (a client is stopped where it runs)", name, network, network)
}
