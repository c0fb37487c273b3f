// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

// globals are the flags every verb takes.
type globals struct {
	network  string
	platform string
	stateDir string
	json     bool

	opened *localcloud.Store
}

func newRoot() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "boxer",
		Short: "One overlay network for programs on VMs, containers and functions",
		Long: `Boxer gives virtual machines, containers and AWS Lambda functions an address and
a name on one overlay network, so that unmodified programs run across them.

Exit status: 0; the program's own (run); or as container runtimes have it, 125 if
Boxer failed, 126 if the command cannot be run, 127 if it was not found.`,
		Example: `  boxer network create shop
  boxer run --kind vm --name store --detach -- redis-server --protected-mode no
  boxer run -- redis-cli -h store ping
  boxer nodes
  boxer network delete shop`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%s; see '%s --help'", plainly(err.Error()), c.CommandPath())
	})
	group(root)
	root.DisableFlagsInUseLine = true
	flags := root.PersistentFlags()
	flags.StringVar(&g.network, "network", os.Getenv("BOXER_CLI_NETWORK"), "network to work on (default: the only one there is)")
	flags.StringVar(&g.platform, "platform", envOr("BOXER_PLATFORM", "local"), "where nodes run: local or aws")
	flags.StringVar(&g.stateDir, "state-dir", "", "state of local networks (default: $BOXER_STATE_DIR, else ~/.local/state/boxer)")
	flags.BoolVar(&g.json, "json", false, "print JSON")
	completeFlags(root, map[string]completer{
		"network": func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return g.networks(c), cobra.ShellCompDirectiveNoFileComp
		},
		"platform": words("local", platformAWS),
		"state-dir": func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	})
	root.AddCommand(
		networkCommand(g), runCommand(g), nodesCommand(g), pathsCommand(g), membersCommand(g), eventsCommand(g),
		logsCommand(g), stopCommand(g), scaleCommand(g), forwardCommand(g), versionCommand(g),
	)
	root.AddCommand(peopleCommands(g)...)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "Write a completion script for bash, zsh or fish"
			c.Example = "  source <(boxer completion bash)"
			group(c)
		}
	}
	return root
}

// plainly replaces what strconv says of a flag's value.
func plainly(text string) string {
	for pattern, words := range map[string]string{
		`strconv\.Parse(Int|Uint): parsing .*$`: "want a whole number",
		`strconv\.ParseBool: parsing .*$`:       "want true or false",
		`strconv\.ParseFloat: parsing .*$`:      "want a number",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, words)
	}
	return text
}

// group makes a command that only has commands below it refuse others.
func group(c *cobra.Command) {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			see := "; see"
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				see = ": did you mean '" + strings.Join(near, "' or '") + "'? See"
			}
			return fmt.Errorf("unknown command %q for %q%s '%s --help'", args[0], c.CommandPath(), see, c.CommandPath())
		}
		return c.Help()
	}
}

func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// store opens the state directory with this very binary as the runtime.
func (g *globals) store() (*localcloud.Store, error) {
	if g.opened != nil {
		return g.opened, nil
	}
	switch g.platform {
	case "local":
	case platformAWS:
		return nil, errors.New("on aws this is for Terraform to do, or for AWS' own tools: the command line has nodes, paths, members, events, logs, stop and scale (of functions), forward and run (of this machine) there")
	default:
		return nil, fmt.Errorf("platform %q: want local or aws", g.platform)
	}
	dir := g.stateDir
	if dir == "" {
		var err error
		if dir, err = localcloud.DefaultStateDir(); err != nil {
			return nil, err
		}
	}
	rt, err := ownRuntime()
	if err != nil {
		return nil, err
	}
	g.opened, err = localcloud.Open(dir, rt)
	return g.opened, err
}

// ownRuntime finds the layers beside this executable (as in bin/ and in a
// release archive).
func ownRuntime() (localcloud.Runtime, error) {
	exe, err := os.Executable()
	if err != nil {
		return localcloud.Runtime{}, fmt.Errorf("find this executable: %w", err)
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return localcloud.Runtime{}, fmt.Errorf("find this executable: %w", err)
	}
	rt := localcloud.Runtime{Boxer: exe, Layers: map[string]string{}}
	zip := filepath.Join(filepath.Dir(exe), "boxer-layer-"+runtime.GOARCH+".zip")
	if _, err := os.Stat(zip); err == nil {
		rt.Layers[runtime.GOARCH] = zip
	}
	return rt, nil
}

// networkName is --network or, without it, the only network.
func (g *globals) networkName(s *localcloud.Store) (string, error) {
	if g.network != "" {
		return g.network, nil
	}
	all, err := s.Networks()
	if err != nil {
		return "", err
	}
	switch len(all) {
	case 0:
		return "", errors.New("there is no network yet: make one with 'boxer network create NAME'")
	case 1:
		return all[0].Name, nil
	}
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = n.Name
	}
	return "", fmt.Errorf("which network? Give --network with one of: %s", strings.Join(names, ", "))
}

// find opens the state directory and the network that is meant.
func (g *globals) find() (*localcloud.Store, localcloud.NetworkInfo, error) {
	s, err := g.store()
	if err != nil {
		return nil, localcloud.NetworkInfo{}, err
	}
	name, err := g.networkName(s)
	if err != nil {
		return nil, localcloud.NetworkInfo{}, err
	}
	info, err := s.Network(name)
	if errors.Is(err, localcloud.ErrNotFound) {
		return nil, info, fmt.Errorf("network %q: there is none of that name: make it with 'boxer network create %s', or see 'boxer network list'", name, name)
	}
	return s, info, err
}

// platformAWS is the platform whose networks other machines run.
const platformAWS = "aws"

// running is the network that is meant, which can be asked.
func (g *globals) running(ctx context.Context) (localcloud.NetworkInfo, error) {
	if g.platform == platformAWS {
		if g.network == "" {
			return localcloud.NetworkInfo{}, errors.New("which network? On aws give its name with --network")
		}
		return onAWS(ctx, g.network)
	}
	_, info, err := g.find()
	if err == nil {
		err = checkAlive(info)
	}
	return info, err
}

// checkAlive explains a network whose daemon has ended.
func checkAlive(info localcloud.NetworkInfo) error {
	if info.Alive {
		return nil
	}
	return fmt.Errorf("network %q is not running: its daemon has ended, and its nodes with it: start a vm or function node to bring it back (--kind vm), or delete it with 'boxer network delete %s'", info.Name, info.Name)
}

func versionCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           "  boxer version --json",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			if g.json {
				return printJSON(c.OutOrStdout(), map[string]string{"version": version, "os": "linux", "arch": runtime.GOARCH})
			}
			fmt.Fprintf(c.OutOrStdout(), "boxer %s linux/%s\n", version, runtime.GOARCH)
			return nil
		},
	}
}
