// SPDX-License-Identifier: Apache-2.0

// Package controller keeps the declared number of function nodes. It runs in the
// seed that leads: what is declared, and what was launched for it, is kept in
// the seeds' state, so that another seed goes on where this one ended.
package controller

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
)

// MaxCount is how many replicas one node may have.
const MaxCount = 1000

// Declaration is what a function node is to be. Its slots are <name>-0,
// <name>-1, ...
type Declaration struct {
	Name     string      `json:"name"`
	Function string      `json:"function"`  // of the platform, that Invoke starts
	Node     config.Node `json:"node"`      // the launch event, but for slot and token
	Count    int         `json:"count"`     // of replicas; declared as -1: as many as there are, within the range
	MemoryMB int         `json:"memory_mb"` // of one, for the budget

	// Within Min and Max the controller moves Count. Max 0: it is as declared.
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`

	// Scale moves it by what the guests have to do. nil: who asks to does.
	Scale *Scale `json:"scale,omitempty"`

	// StandbyFor is the slot of a VM node that the only replica takes when that node
	// is gone. Count is then 0 or 1.
	StandbyFor string `json:"standby_for,omitempty"`

	// Budget in GB-seconds for a day (UTC): when they are spent nothing more is
	// launched. 0: without.
	Budget float64 `json:"gb_seconds_per_day,omitempty"`
}

// Check reports the first thing wrong.
func (d *Declaration) Check() error {
	if err := config.CheckName(d.Name); err != nil {
		return err
	}
	switch {
	case d.Function == "" || len(d.Function) > 256:
		return fmt.Errorf("function node %q: no function to invoke", d.Name)
	case d.MemoryMB < 0 || d.Budget < 0:
		return fmt.Errorf("function node %q: memory and budget cannot be negative", d.Name)
	}
	if err := d.checkRange(); err != nil {
		return err
	}
	n := d.Node
	n.Slot, n.Name = d.slot(max(d.Count, d.Max, 1)-1), d.Name
	if _, err := config.New(n); err != nil {
		return fmt.Errorf("function node %q: %w", d.Name, err)
	}
	if n.Kind != config.KindFunction {
		return fmt.Errorf("function node %q: kind %q: only function nodes are launched", d.Name, n.Kind)
	}
	return nil
}

func (d *Declaration) slot(i int) string {
	if d.StandbyFor != "" {
		return d.StandbyFor
	}
	return d.Name + "-" + strconv.Itoa(i)
}

// index of a slot of d; -1: it is none.
func (d *Declaration) index(slot string) int {
	if d.StandbyFor != "" {
		if slot == d.StandbyFor {
			return 0
		}
		return -1
	}
	number, ok := strings.CutPrefix(slot, d.Name+"-")
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || d.slot(i) != slot {
		return -1
	}
	return i
}

// launch is the last one of a slot.
type launch struct {
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
}

// kept is what must survive: a note of the seeds.
type kept struct {
	Declaration
	Nonce string            `json:"nonce"` // of the first declaration: tokens are never used twice
	Slots map[string]launch `json:"slots"`
	Woken bool              `json:"woken,omitempty"` // it was started on use
	Spent spent             `json:"spent"`
	Home  home              `json:"home,omitzero"` // of a standby
}

// spent is what a day has used of the budget.
type spent struct {
	Day       string  `json:"day"`
	GBSeconds float64 `json:"gb_seconds"`
}

// token of a slot's launch: who knows the network's secret can tell it again, so
// it need not be kept, and whoever launches the same again launches one node.
func (k *kept) token(secret []byte, slot string) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "boxer launch\x00%s\x00%s\x00%d", k.Nonce, slot, k.Slots[slot].Generation)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Store is the seed's durable state.
type Store interface {
	Leading() (term uint64, leads bool)
	Turned() <-chan struct{} // Leading may have changed
	Notes() map[string]json.RawMessage
	Note(term uint64, values map[string]json.RawMessage) error
	// Reserve keeps the names and addresses of these slots while nobody holds them.
	Reserve(term uint64, all []cluster.Reserved) error
	// LetGo takes a slot's holder aside, without a successor.
	LetGo(term uint64, slot string, id uint32) error
}

// Network is the seed's own membership.
type Network interface {
	Members() []cluster.Member
	Subscribe() (<-chan cluster.Event, func())
	Call(ctx context.Context, to uint32, method string, in, out any) error
}

// Invoker launches function nodes: the Lambda Invoke API.
type Invoker interface {
	// Invoke sends one asynchronous event. ErrThrottled: try later.
	Invoke(ctx context.Context, function string, payload []byte) error
}

// ErrThrottled says that the platform wants fewer launches.
var ErrThrottled = errors.New("the platform throttles launches")

// Options of New. Zero durations mean the defaults.
type Options struct {
	Secret  []byte
	Store   Store
	Network Network
	Invoker Invoker // nil: nothing can be declared
	Logger  zerolog.Logger

	Patience time.Duration // a launch joins within it, or is given up; 20 s
	Settle   time.Duration // what a new leader waits for members to come back; 6 s
	Grace    time.Duration // a lost replica may come back within it; 500 ms
	Stable   time.Duration // who ran for so long and ends is replaced at once; 10 s
	Backoff  time.Duration // after the first launch that failed, doubling; 500 ms
	Cooldown time.Duration // what was started on use stays without connections; 60 s
	Again    time.Duration // who does not leave when asked is asked again after it; 10 s
}

const (
	defaultPatience = 20 * time.Second
	defaultSettle   = 6 * time.Second
	defaultGrace    = 500 * time.Millisecond
	defaultStable   = 10 * time.Second
	defaultBackoff  = 500 * time.Millisecond
	defaultAgain    = 10 * time.Second
	defaultResting  = time.Minute

	longestBackoff = time.Minute
	longestLead    = time.Minute   // that a successor is launched before its predecessor ends
	latestEvent    = 6 * time.Hour // how old an event can be when Lambda delivers it
	invokeTimeout  = 10 * time.Second
	callTimeout    = 5 * time.Second
	keepSpent      = time.Minute // how much of a budget's use a seed's end may forget
	keyPrefix      = "function/" // of notes
	invokesAtOnce  = 64
)

// Calls that a controller makes to nodes.
const (
	DrainMethod = "drain" // end the guest and leave
	LoadMethod  = "load"  // say what the guest has to do, from now on
)

// ConfigureMethod gives a VM node another document: its guest is started again by it,
// under the same identity. A seed passes it on.
const ConfigureMethod = "configure"
