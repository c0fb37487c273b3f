// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// networkView is a network as `network list --json` shows it.
type networkView struct {
	Name         string `json:"name"`
	CIDR         string `json:"cidr"`
	Port         int    `json:"port"`
	State        string `json:"state"` // running, stopped
	SeedEndpoint string `json:"seed_endpoint"`
	SecretRef    string `json:"secret_ref"`
	PID          int    `json:"pid,omitempty"`

	SeedEndpoints []string `json:"seed_endpoints"`
}

func viewNetwork(n localcloud.NetworkInfo) networkView {
	state := "stopped"
	if n.Alive {
		state = "running"
	}
	return networkView{n.Name, n.CIDR, n.Port, state, n.SeedEndpoint, "file:" + n.SecretFile, n.PID, n.SeedEndpoints}
}

func networkCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "Create, delete, list and show networks",
		Example: "  boxer network create shop",
	}
	group(cmd)
	cmd.AddCommand(networkCreate(g), networkDelete(g), networkList(g), networkShow(g))
	return cmd
}

func networkCreate(g *globals) *cobra.Command {
	var cidr, isolation string
	var port, seeds int
	var elastic bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a network and start its seeds",
		Long: `Create a network and start its seed. Networks made here and by Terraform are the
same networks, as long as both use one state directory.

With three seeds, nodes can join and come back while one of them is away. What
runs already needs no seed.`,
		Example: `  boxer network create shop
  boxer network create bank --seeds 3
  boxer network create lab --cidr 100.90.0.0/16 --port 7800`,
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := g.store()
			if err != nil {
				return err
			}
			w := waiting(fmt.Sprintf("network %q to be up", args[0]))
			defer w.done()
			info, err := s.CreateNetwork(c.Context(), localcloud.NetworkSpec{Name: args[0], CIDR: cidr, Port: port, Seeds: seeds, Isolation: isolation, Elastic: elastic})
			if err != nil {
				return err
			}
			w.done()
			if info.Notice != "" {
				fmt.Fprintln(c.ErrOrStderr(), "boxer: "+info.Notice)
			}
			if g.json {
				return printJSON(c.OutOrStdout(), viewNetwork(info))
			}
			word := "seed"
			if len(info.SeedEndpoints) > 1 {
				word = "seeds"
			}
			fmt.Fprintf(c.OutOrStdout(), "network %s is up: %s, %s at %s\n", info.Name, info.CIDR, word, strings.Join(info.SeedEndpoints, ", "))
			return nil
		},
	}
	cmd.Flags().StringVar(&cidr, "cidr", config.DefaultCIDR, "overlay network, IPv4, /8 to /28")
	cmd.Flags().IntVar(&seeds, "seeds", 1, "how many seeds the network runs: 1, or 3 that keep one state")
	cmd.Flags().StringVar(&isolation, "isolation", localcloud.DefaultIsolation(), "what keeps nodes apart: namespaces, processes (nothing does), or auto: namespaces where the system allows them; $"+localcloud.IsolationEnv)
	cmd.Flags().IntVar(&port, "port", config.DefaultPort, "overlay port of every node, 1 to 65535")
	cmd.Flags().BoolVar(&elastic, "elastic", false, "give hosts public addresses that are translated, as on EC2")
	_ = cmd.Flags().MarkHidden("elastic") // for tests
	completeFlags(cmd, map[string]completer{"isolation": words("auto", "namespaces", "processes"), "seeds": words("1", "3")})
	return cmd
}

func networkDelete(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Stop every node of a network and remove all that belongs to it",
		Long: `Stop every node of a network and remove all that belongs to it, logs and secret
included. Deleting what is not there is no error.`,
		Example:           "  boxer network delete shop",
		Args:              exactArgs(1),
		ValidArgsFunction: first(g.networks),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := g.store()
			if err != nil {
				return err
			}
			w := waiting(fmt.Sprintf("the nodes of network %q to end", args[0]))
			err = s.DeleteNetwork(c.Context(), args[0])
			w.done()
			if err != nil {
				return goesOn(c.Context(), err, "its nodes end all the same, the rest is deleted by doing it again")
			}
			if g.json {
				return printJSON(c.OutOrStdout(), map[string]string{"name": args[0], "state": "deleted"})
			}
			fmt.Fprintf(c.OutOrStdout(), "network %s is gone\n", args[0])
			return nil
		},
	}
}

func networkList(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "List the networks of the state directory",
		Example:           "  boxer network list --json | jq -r '.[].name'",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := g.store()
			if err != nil {
				return err
			}
			all, err := s.Networks()
			if err != nil {
				return err
			}
			views := make([]networkView, len(all))
			t := table{columns: []column{
				{title: "NAME"}, {title: "STATE", fixed: true}, {title: "CIDR", fixed: true},
				{title: "SEED", fixed: true}, {title: "PORT", fixed: true, optional: true},
			}}
			for i, n := range all {
				v := viewNetwork(n)
				views[i] = v
				t.rows = append(t.rows, []string{v.Name, v.State, v.CIDR, v.SeedEndpoint, strconv.Itoa(v.Port)})
			}
			return g.print(c.OutOrStdout(), view{data: views, table: t})
		},
	}
}

// exactArgs and atMostArgs are cobra's, in words that name what is wanted.
func exactArgs(n int) cobra.PositionalArgs { return wanted(cobra.ExactArgs(n)) }

func atMostArgs(n int) cobra.PositionalArgs { return wanted(cobra.MaximumNArgs(n)) }

func wanted(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if check(c, args) == nil {
			return nil
		}
		line := strings.TrimSuffix(c.UseLine(), " [flags]")
		return fmt.Errorf("want '%s', got %s; see '%s --help'", line, counted(len(args), "argument"), c.CommandPath())
	}
}

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
