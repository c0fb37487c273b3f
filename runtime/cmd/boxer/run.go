// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// readyTimeout bounds how long `run --detach` waits for its nodes.
const readyTimeout = 2 * time.Minute

// runFlags of `boxer run`.
type runFlags struct {
	name, kind, service string
	count               int
	detach              bool
	env, publish, wait  []string
	transports          []string
	sourceDir, restart  string
	memory, timeout     int
	ephemeral           int
	relaxed             bool
	root, nat           string
	site, public        string
	tokenFile           string
	seeds               []string
}

func runCommand(g *globals) *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Run a program as a node of the network",
		Long: `Run an unmodified program as a node of the network.

--kind client (the default) runs it right here, with this terminal, its signals
and its exit status: an ad-hoc node that can reach every other, without a VPN or a
bastion. --kind vm and --kind function start a node of the platform; in the
foreground its output is printed until the program ends (standard input is not
passed on), with --detach the node is left running, and its name printed.

Exit status: the program's own; 125 Boxer failed, or the command line is wrong;
126 the command cannot be run; 127 it was not found.`,
		Example: `  boxer run --network shop -- psql -h db
  boxer run --kind vm --name db --detach --publish 8080:80 -- nginx -c /var/task/c
  boxer run --kind function --name logic --count 3 --detach --source-dir app \
            --wait-for db=1 -- python3 /var/task/app.py`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run: no command given; write it after --, as in: boxer run --network shop -- redis-cli -h store ping")
			}
			if err := checkOnlyFor(c, f.kind); err != nil {
				return err
			}
			code, err := run(c.Context(), g, f, args)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&f.name, "name", "", "name of the node (default: made up)")
	flags.StringVar(&f.kind, "kind", config.KindClient, "client, vm or function")
	flags.StringVar(&f.service, "service", "", "service name shared with other nodes (default: the name)")
	flags.IntVar(&f.count, "count", 1, "how many nodes, 1 to 1000; needs --detach")
	flags.BoolVar(&f.detach, "detach", false, "leave the node running and return when it runs")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment of the program, KEY=VALUE (repeatable)")
	flags.StringArrayVar(&f.publish, "publish", nil, "[ADDRESS:]HOST_PORT:PORT: make a port of a vm node reachable at 127.0.0.1, or at the address (repeatable)")
	flags.StringArrayVar(&f.wait, "wait-for", nil, "SERVICE=COUNT or nodes=COUNT: start the program when these run (repeatable)")
	flags.StringSliceVar(&f.transports, "transports", nil, `what the program's own connections may use, comma-separated (default: all):
native: the kernel connects to a node of the same site, or to this one;
direct: to the peer's overlay port, nobody in between;
punch: the same past NATs, or the peer dials back;
relay: spliced through a third node, where both sides meet`)
	flags.StringVar(&f.sourceDir, "source-dir", "", "directory whose contents land in /var/task (vm, function)")
	flags.StringVar(&f.restart, "restart", config.RestartNo, "no, on-failure or always")
	flags.IntVar(&f.memory, "memory-size", 512, "memory of a function, MB, 128 to 10240; 1769 MB come with one CPU")
	flags.IntVar(&f.ephemeral, "ephemeral-storage", 512, "size of a function's /tmp, MB, 512 to 10240")
	flags.BoolVar(&f.relaxed, "relaxed", false, "lift what Lambda forbids a function, to debug it (gdb, strace)")
	flags.StringVar(&f.root, "root", "", "directory with another system's programs and libraries: a function sees them instead of this machine's")
	flags.StringVar(&f.tokenFile, "join-token-file", "", joinTokenHelp)
	flags.StringArrayVar(&f.seeds, "seed", nil, seedHelp)
	flags.IntVar(&f.timeout, "timeout", 900, "life of a function, seconds, 1 to 900")
	flags.StringVar(&f.nat, "nat", "", "kind of NAT that the function is behind")
	flags.StringVar(&f.site, "site", "", "another site than that of the other vms, vpc2, where the network is elastic")
	flags.StringVar(&f.public, "public-address", "", "none: a vm without one, where the network is elastic")
	for _, name := range []string{"nat", "site", "public-address"} { // for tests
		_ = flags.MarkHidden(name)
	}
	completeFlags(cmd, map[string]completer{
		"kind":       words(config.KindClient, config.KindVM, config.KindFunction),
		"restart":    words(config.RestartNo, config.RestartOnFailure, config.RestartAlways),
		"transports": words(config.TransportNative, config.TransportDirect, config.TransportPunch, config.TransportRelay),
	})
	return cmd
}

// onlyFor are flags that mean nothing to other kinds of node.
var onlyFor = map[string][]string{
	"source-dir": {config.KindVM, config.KindFunction}, "memory-size": {config.KindFunction},
	"ephemeral-storage": {config.KindFunction}, "timeout": {config.KindFunction},
}

// checkOnlyFor refuses what would have no effect, or another than was asked for.
func checkOnlyFor(c *cobra.Command, kind string) error {
	for _, name := range slices.Sorted(maps.Keys(onlyFor)) {
		flag, kinds := c.Flags().Lookup(name), onlyFor[name]
		switch {
		case !flag.Changed:
		case !slices.Contains(kinds, kind):
			return fmt.Errorf("run: --%s is for %s nodes: add --kind %s", name, strings.Join(kinds, " and "), strings.Join(kinds, " or --kind "))
		case flag.Value.String() == "0": // which stands for the default elsewhere
			return fmt.Errorf("run: --%s 0: want a number as said in its help (%s)", name, flag.Usage)
		}
	}
	return nil
}

func run(ctx context.Context, g *globals, f *runFlags, argv []string) (int, error) {
	n, err := f.config(argv)
	if err != nil {
		return 0, err
	}
	token, err := f.joinToken()
	if err != nil {
		return 0, err
	}
	if token != nil {
		return f.runByToken(ctx, g.network, n, token)
	}
	if g.platform == platformAWS && f.kind == config.KindClient {
		info, err := g.running(ctx)
		if err != nil {
			return 0, err
		}
		return runClient(ctx, info, n)
	}
	store, info, err := g.find()
	if err != nil {
		return 0, err
	}
	n.Network = info.Name
	switch f.kind {
	case config.KindClient:
		return runClient(ctx, info, n)
	case config.KindVM, config.KindFunction:
		w := waiting(fmt.Sprintf("network %q to be up", info.Name))
		client, err := store.Connect(ctx, info.Name)
		w.done()
		if err != nil {
			return 0, err
		}
		if info, err = store.Network(info.Name); err != nil { // Connect may have restarted it
			return 0, err
		}
		p := &platformRun{store: store, Launcher: launch.Launcher{Network: info, Client: client}, flags: f, json: g.json}
		if f.detach {
			return 0, p.detached(ctx, n)
		}
		return p.foreground(ctx, n)
	}
	return 0, fmt.Errorf("run: --kind %q: want client, vm or function", f.kind)
}

// config turns the flags into a node's configuration, all but its network.
func (f *runFlags) config(argv []string) (config.Node, error) {
	n := config.Node{Kind: f.kind, Name: f.name, Service: f.service, Argv: argv, Restart: f.restart, LaunchToken: launch.Token()}
	if n.Name == "" {
		n.Name = f.kind + "-" + launch.Token()[:6]
	}
	n.Slot = n.Name
	if f.count < 1 || f.count > 1000 {
		return n, fmt.Errorf("run: --count %d: want 1 to 1000", f.count)
	}
	if f.count > 1 && !f.detach {
		return n, errors.New("run: --count is for nodes that are left running, several programs cannot share one terminal: add --detach")
	}
	if f.detach && f.kind == config.KindClient {
		return n, errors.New("run: --detach is for nodes of the platform: add --kind vm or --kind function")
	}
	if len(f.publish) > 0 && f.kind != config.KindVM {
		return n, errors.New("run: --publish is for vm nodes: add --kind vm")
	}
	for _, name := range f.transports {
		if err := config.CheckTransport(name); err != nil {
			return n, fmt.Errorf("run: --transports: %w", err)
		}
	}
	n.Transports = f.transports
	if f.relaxed && f.kind != config.KindFunction {
		return n, errors.New("run: --relaxed is for function nodes: add --kind function")
	}
	if f.root != "" && f.kind != config.KindFunction {
		return n, errors.New("run: --root is for function nodes: add --kind function")
	}
	n.Site, n.PublicAddress = f.site, f.public
	if f.nat != "" && f.kind != config.KindFunction {
		return n, errors.New("run: --nat is for function nodes: add --kind function")
	}
	var err error
	if n.Env, err = keyValues(f.env); err != nil {
		return n, fmt.Errorf("run: -e %w", err)
	}
	if n.Publish, err = publishes(f.publish); err != nil {
		return n, err
	}
	n.WaitFor, err = counts(f.wait)
	return n, err
}

func keyValues(list []string) (map[string]string, error) {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q: want KEY=VALUE", kv)
		}
		m[k] = v
	}
	return m, nil
}

func publishes(list []string) ([]config.Publish, error) {
	var all []config.Publish
	for _, s := range list {
		local, port, err := parseForward(s)
		address, here, _ := net.SplitHostPort(local)
		if err != nil || here == "0" {
			return nil, fmt.Errorf("run: --publish %q: want [ADDRESS:]HOST_PORT:PORT, as in 8080:80", s)
		}
		hostPort, _ := strconv.Atoi(here) // a number, as parseForward says
		all = append(all, config.Publish{Port: int(port), HostPort: hostPort, HostAddress: address})
	}
	return all, nil
}

func counts(list []string) (map[string]int, error) {
	m := make(map[string]int, len(list))
	for _, s := range list {
		name, count, ok := strings.Cut(s, "=")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 {
			return nil, fmt.Errorf("run: --wait-for %q: want SERVICE=COUNT, as in store=1", s)
		}
		m[name] = n
	}
	return m, nil
}

// platformRun starts nodes of the platform.
type platformRun struct {
	launch.Launcher
	store    *localcloud.Store
	flags    *runFlags
	json     bool
	function string // that this run has created
}

// networkGone says that the network was deleted, or has ended, under this run.
func (p *platformRun) networkGone() error {
	info, err := p.store.Network(p.Network.Name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return fmt.Errorf("network %q was deleted, and this node with it", p.Network.Name)
	} else if err != nil {
		return err
	}
	return checkAlive(info)
}

// start launches the slots of n and returns what to wait for.
func (p *platformRun) start(ctx context.Context, n config.Node) ([]launch.Want, error) {
	slots := []string{n.Name}
	if n.Kind == config.KindFunction || p.flags.count > 1 {
		slots = launch.Slots(n.Name, p.flags.count)
	}
	function := ""
	if n.Kind == config.KindFunction {
		function = n.Name
		root, err := absolute(p.flags.root)
		if err != nil {
			return nil, err
		}
		if _, err := p.Client.CreateFunction(ctx, localcloud.FunctionSpec{
			Config: replica(n),
			Name:   function, SourceDir: p.flags.sourceDir, MemoryMB: p.flags.memory, EphemeralMB: p.flags.ephemeral,
			TimeoutS: p.flags.timeout, Relaxed: p.flags.relaxed, Root: root, NAT: p.flags.nat,
		}); err != nil {
			return nil, err
		}
		p.function = function
	}
	var wants []launch.Want
	for _, slot := range slots {
		n.Slot, n.LaunchToken = slot, launch.Token()
		checked, err := config.New(p.filled(n))
		if err != nil {
			return wants, fmt.Errorf("run: %w", err)
		}
		if function == "" {
			_, err = p.VM(ctx, checked, p.flags.sourceDir)
		} else {
			err = p.Function(ctx, function, checked)
		}
		if err != nil {
			return wants, err
		}
		wants = append(wants, launch.Want{Slot: slot, Token: n.LaunchToken, Function: function})
	}
	return wants, nil
}

// absolute is path for the daemon, which is not started here.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// replica is what each replica of a function node runs, but for its slot and token.
func replica(n config.Node) *config.Node {
	n.Slot, n.LaunchToken = "", ""
	return &n
}

// filled is n with what only the platform knows, so that it can be checked here.
func (p *platformRun) filled(n config.Node) config.Node {
	n.SecretRef = "file:" + p.Network.SecretFile
	n.SeedEndpoints = p.Network.SeedEndpoints
	return n
}

// clean removes what start has made, and only that, even when ctx has ended.
func (p *platformRun) clean(ctx context.Context, wants []launch.Want) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if p.networkGone() != nil {
		return // with all that was made there
	}
	if p.function != "" {
		if err := p.Client.DeleteFunction(ctx, p.function); err != nil {
			fmt.Fprintf(os.Stderr, "boxer: remove function %q: %v\n", p.function, err)
		}
		return
	}
	var all sync.WaitGroup
	for _, w := range wants { // all at once: a guest may take ten seconds to end
		all.Go(func() {
			if err := p.Client.DeleteHost(ctx, w.Slot); err != nil {
				fmt.Fprintf(os.Stderr, "boxer: remove node %q: %v\n", w.Slot, err)
			}
		})
	}
	all.Wait()
}

func (p *platformRun) detached(ctx context.Context, n config.Node) error {
	w := waiting(n.Name + " to run")
	defer w.done()
	p.Progress = func(_ time.Duration, missing []string) { w.now(strings.Join(missing, ", ")) }
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	wants, err := p.start(ctx, n)
	if err == nil {
		_, err = p.Wait(ctx, wants)
	}
	w.done()
	if err != nil {
		p.clean(ctx, wants)
		var failure *launch.Failure
		if errors.As(err, &failure) && failure.CannotRun != 0 {
			return &exitError{failure.CannotRun, err}
		}
		return err
	}
	if p.json {
		slots := make([]string, len(wants))
		for i, w := range wants {
			slots[i] = w.Slot
		}
		return printJSON(os.Stdout, slots)
	}
	for _, w := range wants {
		fmt.Println(w.Slot)
	}
	return nil
}
