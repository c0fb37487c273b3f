// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A function that is used again (FunctionSpec.Reuse) lives as an environment on
// Lambda does: when the runtime has answered and asks for the next event, every
// process is stopped, until there is one. Its end is announced half a second
// before to a runtime that has an extension, and to no other.

// orderEvent gives a frozen sandbox its next event, as a descriptor.
const orderEvent = 'e'

const (
	askTime      = 5 * time.Second        // for a runtime that has answered to ask again
	shutdownTime = 500 * time.Millisecond // from SIGTERM to SIGKILL, with an internal extension
)

// runEvents has the runtime handle one event after the other, until it ends or
// is ended.
func (h *hostInit) runEvents(api *runtimeAPI) error {
	go h.takeOrders()
	for e := h.spec.Event; ; {
		if err := h.oneEvent(api, e); err != nil {
			h.shutDown(api)
			return err
		}
		failure, _ := api.outcome()
		_ = syscall.Kill(-1, unix.SIGSTOP)
		h.report(initReport{Frozen: true, Error: failure})
		var err error
		e, err = h.nextEvent()
		_ = syscall.Kill(-1, unix.SIGCONT)
		if e == nil {
			h.shutDown(api)
			return err
		}
		api.give(e)
	}
}

// oneEvent returns when the sandbox can be frozen, or why it must end.
func (h *hostInit) oneEvent(api *runtimeAPI, e *event) error {
	select {
	case <-time.After(time.Until(e.Deadline)):
		return errors.New(e.timedOut())
	case <-api.answeredEvent():
	case status := <-h.ended:
		h.ended <- status
		if failure, answered := api.outcome(); answered && failure != "" {
			return errors.New(failure)
		}
		return fmt.Errorf("Runtime.ExitError: the runtime ended before it answered: %s", describe(status))
	case <-h.signals:
		return errors.New("stopped")
	}
	select {
	case <-api.asked:
		return nil
	case status := <-h.ended:
		h.ended <- status
		failure, _ := api.outcome()
		return fmt.Errorf("Runtime.ExitError: the runtime ended (%s) after it had answered: %s", describe(status), failure)
	case <-time.After(askTime):
		failure, _ := api.outcome()
		return fmt.Errorf("the runtime asks for no other event %s after it has answered: %s", askTime, failure)
	}
}

// nextEvent waits frozen; nil: the sandbox is to end.
func (h *hostInit) nextEvent() (*event, error) {
	var next order
	select {
	case next = <-h.orders:
	case <-h.signals:
		return nil, nil
	}
	if next.kind != orderEvent || len(next.fds) != 1 {
		return nil, errors.New("next event: not what was ordered")
	}
	in := os.NewFile(uintptr(next.fds[0]), "event")
	defer in.Close()
	e := &event{}
	if err := json.NewDecoder(in).Decode(e); err != nil {
		return nil, fmt.Errorf("next event: %w", err)
	}
	return e, nil
}

// shutDown is Lambda's shutdown phase.
func (h *hostInit) shutDown(api *runtimeAPI) {
	grace := time.Duration(0)
	if api.registered() {
		_ = syscall.Kill(h.child, unix.SIGTERM)
		grace = shutdownTime
	}
	select {
	case <-h.ended:
	case <-time.After(grace):
	}
	h.killAll()
}

// thaw gives a frozen sandbox its next event.
func (b *sandbox) thaw(e *event) error {
	doc, err := json.Marshal(e)
	if err != nil {
		return err
	}
	file, err := memoryFile("event", doc)
	if err != nil {
		return err
	}
	defer file.Close()
	return b.order(orderEvent, file)
}
