// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/process"
)

// handleSignals gives a foreground guest its signals; any other node is
// stopped by SIGTERM and SIGINT, and passes on what programs use between
// themselves. The returned function ends it.
func (n *node) handleSignals() func() {
	terminal := n.o.Foreground && n.o.Stdin != nil && term.IsTerminal(int(n.o.Stdin.Fd()))
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		// Under nohup the guest ignores it as well, as it would without us.
		if !n.o.Foreground || !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				n.signalled(s.(syscall.Signal), terminal)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

func (n *node) signalled(s syscall.Signal, terminal bool) {
	guest := n.currentGuest()
	ends := s == syscall.SIGTERM || s == syscall.SIGINT
	switch {
	case n.cfg.Kind == config.KindClient && guest != nil:
		// The terminal gave it these two already: it is of the same job.
		if !terminal || s != syscall.SIGINT && s != syscall.SIGQUIT {
			guest.Signal(s)
		}
	case ends || guest == nil && n.cfg.Kind == config.KindClient:
		n.log.Info().Stringer("signal", s).Msg("stopping")
		n.stopping(&stopSignal{s})
	case guest != nil:
		guest.Signal(s)
	}
}

func (n *node) setGuest(g *process.Guest) {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	n.guest = g
}

func (n *node) currentGuest() *process.Guest {
	n.status.mu.Lock()
	defer n.status.mu.Unlock()
	return n.guest
}

// stopSignal is errStopped, by a signal.
type stopSignal struct{ signal syscall.Signal }

func (s *stopSignal) Error() string { return errStopped.Error() + " by a signal: " + s.signal.String() }

func (s *stopSignal) Is(target error) bool { return target == errStopped }
