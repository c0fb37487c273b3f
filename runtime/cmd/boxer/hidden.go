// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/google/renameio/v2"
	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/lambda"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
	"github.com/boxer-overlay/boxer/runtime/node"
)

// hidden runs the verbs that Boxer's own scripts type, before the command line
// is built, and exits: a supervisor starts as fast as it can. It returns if args
// are none of them.
func hidden(args []string) {
	if len(args) == 0 {
		return
	}
	switch args[0] {
	case "node":
		os.Exit(runNode(args[1:]))
	case "function":
		os.Exit(runFunction())
	case "local-cloud":
		os.Exit(localcloud.Main(args[1:]))
	case "local-host":
		os.Exit(localcloud.HostMain(args[1:]))
	}
}

// supervisorLog writes JSON lines, for those who collect logs.
func supervisorLog(w io.Writer) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	level := zerolog.InfoLevel
	if l, err := zerolog.ParseLevel(os.Getenv("BOXER_LOG")); err == nil && l != zerolog.NoLevel {
		level = l
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// clientLog is silent: the terminal is the guest's, and what goes wrong is
// returned. BOXER_LOG=debug (info, warn ...) lets the supervisor speak.
func clientLog() zerolog.Logger {
	if os.Getenv("BOXER_LOG") == "" {
		return zerolog.Nop()
	}
	return supervisorLog(os.Stderr)
}

// runNode is the supervisor of a VM or seed: `boxer node --config FILE`. What
// the guest prints goes to stdout, the supervisor's log to stderr.
func runNode(args []string) int {
	flags := flag.NewFlagSet("boxer node", flag.ContinueOnError)
	path := flags.String("config", "/etc/boxer/node.json", "configuration of the node")
	library := flags.String("library", "", "libboxer.so (default: beside this program, or in ../lib)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return exitFailed
	}
	code, err := nodeFromFile(*path, *library)
	if err != nil {
		fmt.Fprintf(os.Stderr, "boxer node: %v\n", err)
	}
	return code
}

// nodeFromFile lives the lives of a node, each by the document that the one before
// was given, if it was.
func nodeFromFile(path, library string) (int, error) {
	for {
		code, err := oneLife(path, library)
		if !errors.Is(err, node.ErrConfigured) {
			return code, err
		}
	}
}

func oneLife(path, library string) (int, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return exitFailed, err
	}
	log := supervisorLog(os.Stderr)
	secret, err := node.Secret(context.Background(), cfg, log)
	if err != nil {
		return exitFailed, err
	}
	return node.Run(context.Background(), node.Options{
		Config: cfg, Secret: secret, Library: library, Version: version,
		Stdout: os.Stdout, Logger: log,
		Configure: func(n config.Node) error { return keepNode(path, n) },
	})
}

// keepNode writes the document of a node's next life.
func keepNode(path string, n config.Node) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return renameio.WriteFile(path, append(data, '\n'), 0o600)
}

// startTime is how long a start that is not slow takes.
const startTime = 2 * time.Second

// spareStart puts garbage collections off until a node has started: many start at once,
// and what each makes then is few megabytes.
func spareStart() func() {
	usual := debug.SetGCPercent(400)
	timer := time.AfterFunc(startTime, func() { debug.SetGCPercent(usual) })
	return func() { timer.Stop() }
}

// runFunction is the supervisor of a function node, started by the layer's
// bootstrap.
func runFunction() int {
	defer spareStart()()
	err := lambda.Run(context.Background(), lambda.Options{
		Stdout: os.Stdout, Version: version, Logger: supervisorLog(os.Stderr),
	})
	fmt.Fprintf(os.Stderr, "boxer function: %v\n", err)
	return exitFailed
}

// asClient is n with what a node of this machine itself needs to know.
func asClient(info localcloud.NetworkInfo, n config.Node) config.Node {
	n.Network = info.Name
	n.SecretRef = "file:" + info.SecretFile
	if info.Elsewhere != nil {
		n.SecretRef = info.Elsewhere.SecretRef
	}
	n.SeedEndpoints = info.SeedEndpoints
	n.Reach = config.ReachSeeds
	n.Port = info.Port
	return n
}

// runClient makes this very process the supervisor of an ad-hoc node, and the
// guest its child with this terminal.
func runClient(ctx context.Context, info localcloud.NetworkInfo, n config.Node) (int, error) {
	if err := checkAlive(info); err != nil {
		return 0, err
	}
	n = asClient(info, n)
	secret, err := launch.Secret(info)
	if err != nil {
		return 0, err
	}
	return runHere(ctx, n, node.Options{Secret: secret})
}

// runHere is runClient with a network of any machine.
func runHere(ctx context.Context, n config.Node, o node.Options) (int, error) {
	n.Reach = config.ReachSeeds
	n, err := config.New(n)
	if err != nil {
		return 0, err
	}
	o.Config, o.Version, o.Logger = n, version, clientLog()
	o.Stdin, o.Stdout, o.Stderr, o.Foreground = os.Stdin, os.Stdout, os.Stderr, true
	w := waiting("the network to take this node in")
	defer w.done()
	o.Waiting, o.Starting = w.now, w.done
	// The guest gets the signals; the supervisor ends when it does.
	code, err := node.Run(context.WithoutCancel(ctx), o)
	if err != nil && code != 0 {
		err = &exitError{code, err}
	}
	return code, err
}
