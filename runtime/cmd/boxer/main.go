// SPDX-License-Identifier: Apache-2.0

// Without these Go reads all mounts to find its control group when it starts, and
// looks again now and then. A supervisor waits more than it computes.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command boxer is the node supervisor and the command line of Boxer: one
// binary that users type, that VMs run as a service and functions as their
// runtime.
//
// Exit status: the guest's own for `boxer run` in the foreground; otherwise 0,
// 128 and the number of a signal that ended it, or as container runtimes have it 125 (Boxer failed, or the command line is
// wrong), 126 (the command cannot be run), 127 (it was not found).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

// exitFailed is the exit status when Boxer itself failed.
const exitFailed = 125

// exitError carries another exit status through cobra; a nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	hidden(os.Args[1:])
	chooseEllipsis()
	ctx, stop := untilSignal(context.Background())
	err := newRoot().ExecuteContext(ctx)
	stop()
	os.Exit(report(ctx, err))
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal syscall.Signal }

func (i *interrupted) Error() string { return i.signal.String() }

// status is what a shell reports for a program that ended so.
func (i *interrupted) status() int { return 128 + int(i.signal) }

// untilSignal ends the context with the first signal that asks to end; a closed
// terminal is one too. Clients pass the signals on to their guest (node.Run),
// everything else takes back what it has begun. What whoever started us ignores
// (nohup, a shell's background) stays ignored.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			cancel(&interrupted{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// goingOn is an error of what goes on when the command does not.
type goingOn struct {
	error
	what string
}

func (g *goingOn) Unwrap() error { return g.error }

// goesOn says of an error that a signal was the reason of what becomes of the work.
func goesOn(ctx context.Context, err error, what string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return &goingOn{err, what}
}

// report prints err and returns the exit status.
func report(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var exit *exitError
	var by *interrupted
	switch {
	case errors.As(err, &exit):
		if code = exit.code; exit.err == nil {
			return code
		}
	case errors.As(context.Cause(ctx), &by):
		became := "what was begun was taken back"
		var going *goingOn
		if errors.As(err, &going) {
			became = going.what
		}
		fmt.Fprintf(os.Stderr, "boxer: ended by a signal (%v); %s\n", by, became)
		return by.status()
	}
	fmt.Fprintf(os.Stderr, "boxer: %v\n", err)
	return code
}
