// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// networkDetails is a network as `network show --json` shows it. Nodes and
// Functions are absent while it does not run.
type networkDetails struct {
	networkView
	Isolation string                `json:"isolation"`
	Created   time.Time             `json:"created"`
	Directory string                `json:"directory"`
	Log       string                `json:"log"` // of its daemon
	Seeds     []seedView            `json:"seeds,omitempty"`
	Nodes     map[string]int        `json:"nodes,omitempty"`
	Functions []localcloud.Function `json:"functions,omitempty"`
	Problem   string                `json:"problem,omitempty"` // why Nodes is not known
}

// seedView is one seed of a network that has several.
type seedView struct {
	Slot     string `json:"slot"`
	Endpoint string `json:"endpoint"`
	State    string `json:"state"` // of its host
	Leader   bool   `json:"leader"`
	Error    string `json:"error,omitempty"`
}

func networkShow(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show one network: its state, its seed, its files, what runs in it",
		Example: `  boxer network show shop
  boxer network show --json | jq -r .seed_endpoint`,
		Args:              atMostArgs(1),
		ValidArgsFunction: first(g.networks),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				g.network = args[0]
			}
			s, info, err := g.find()
			if err != nil {
				return err
			}
			d := networkDetails{networkView: viewNetwork(info), Isolation: info.Isolation, Created: info.Created, Directory: info.Directory, Log: info.Directory + "/cloud.log"}
			if info.Alive {
				if err := d.ask(c.Context(), s, info); err != nil {
					return err
				}
			}
			return g.print(c.OutOrStdout(), view{data: d, table: d.table()})
		},
	}
}

// ask fills in what only a running network can tell.
func (d *networkDetails) ask(ctx context.Context, s *localcloud.Store, info localcloud.NetworkInfo) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := s.Connect(ctx, info.Name)
	if err != nil {
		return err
	}
	defer client.Close()
	if d.Functions, err = client.Functions(ctx); err != nil {
		return err
	}
	if err := d.askSeeds(ctx, client); err != nil {
		return err
	}
	for i := range d.Functions {
		d.Functions[i].Config = nil // its environment may hold what is not for a screen
	}
	session, err := launch.Observe(ctx, info)
	if err != nil {
		if len(d.Seeds) > 0 {
			d.Problem = err.Error() // the seeds' states say more
			return nil
		}
		return err
	}
	defer session.Close()
	d.Nodes = map[string]int{}
	for _, m := range session.Members() {
		d.Nodes[m.Kind]++
		for i := range d.Seeds {
			d.Seeds[i].Leader = d.Seeds[i].Leader || m.Leader && m.Slot == d.Seeds[i].Slot
		}
	}
	return nil
}

// askSeeds lists the seeds, if there are several.
func (d *networkDetails) askSeeds(ctx context.Context, client *localcloud.Client) error {
	if len(d.SeedEndpoints) < 2 {
		return nil
	}
	for i, endpoint := range d.SeedEndpoints {
		host, err := client.Host(ctx, cluster.SeedName(i))
		if errors.Is(err, localcloud.ErrNotFound) {
			host, err = localcloud.Host{Slot: cluster.SeedName(i), State: localcloud.HostExited}, nil
		}
		if err != nil {
			return err
		}
		d.Seeds = append(d.Seeds, seedView{Slot: host.Slot, Endpoint: endpoint, State: host.State, Error: host.Error})
	}
	return nil
}

func (v seedView) String() string {
	text := fmt.Sprintf("%s %s", v.Slot, v.State)
	if v.Leader {
		text += ", leads"
	}
	return text + ", " + v.Endpoint
}

func (d *networkDetails) table() table {
	t := table{columns: []column{{title: "NAME"}, {title: d.Name}}}
	row := func(name, value string) { t.rows = append(t.rows, []string{name, value}) }
	row("STATE", d.State)
	row("CIDR", d.CIDR)
	row("PORT", strconv.Itoa(d.Port))
	if len(d.Seeds) == 0 {
		row("SEED", strings.Join(d.SeedEndpoints, ", "))
	}
	for _, seed := range d.Seeds {
		row("SEED", seed.String())
	}
	row("ISOLATION", d.Isolation)
	row("CREATED", d.Created.Local().Format(time.DateTime))
	row("SECRET", d.SecretRef)
	row("LOG", d.Log)
	if d.Problem != "" {
		row("NODES", "not known: "+d.Problem)
	}
	for _, kind := range []string{config.KindSeed, config.KindVM, config.KindFunction, config.KindContainer, config.KindClient} {
		if n := d.Nodes[kind]; n > 0 {
			row("NODES", fmt.Sprintf("%d %s", n, kind))
		}
	}
	for _, f := range d.Functions {
		row("FUNCTION", fmt.Sprintf("%s: %d running, %d MB", f.Name, f.Running, f.MemoryMB))
	}
	return t
}
