// SPDX-License-Identifier: Apache-2.0

// Package node is the life of one node: it wires the overlay port, the control
// network, the node table, the process monitors' requests and the guest.
//
//	overlay port -> (seed) -> join -> table, ipc -> barrier -> guest -> status -> leave
package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/process"
	"github.com/boxer-overlay/boxer/runtime/socket"
	"github.com/boxer-overlay/boxer/runtime/table"
	"github.com/boxer-overlay/boxer/runtime/transport"
)

// ExitFailed is the exit status when Boxer itself failed.
const ExitFailed = 125

// leaveTimeout bounds the good-bye; without it the seed waits for the lease.
const leaveTimeout = 2 * time.Second

// Options of Run.
type Options struct {
	Config  config.Node
	Secret  []byte
	Token   *cluster.Token // instead of Secret: clients only
	Library string         // libboxer.so; empty: beside this program, or in ../lib
	Version string

	// The guest's stdio in the foreground. Otherwise its stdin is /dev/null and
	// all it prints goes to Stdout.
	Stdin, Stdout, Stderr *os.File
	Foreground            bool

	// Deadline of the platform (functions); the zero time: none.
	Deadline time.Time
	// Waiting, if set, is told about once a second what is missing at the start
	// barrier.
	Waiting func(missing string)
	// Starting, if set, is called just before the guest is started.
	Starting func()
	// Configure, if set, keeps another document for the node's next life, which Run
	// asks for with ErrConfigured.
	Configure func(config.Node) error
	// Ended, if set, is told why the node's life ended, just before Run returns.
	Ended  func(Result)
	Logger zerolog.Logger
}

// Reasons of a Result.
const (
	ReasonGuest    = "guest"    // the guest ended, or could not be started
	ReasonDeadline = "deadline" // drained before the platform's deadline
	ReasonStopped  = "stopped"  // a signal, or the caller's context
	ReasonRetired  = "retired"  // drained after a successor took the slot
	ReasonLost     = "lost"     // the network gave this node up
)

// Result says how a node's life ended.
type Result struct {
	Reason   string `json:"reason"`
	NodeID   uint32 `json:"node_id"`
	Address  string `json:"address"`
	ExitCode *int   `json:"exit_code,omitempty"` // the guest's, if it ended
}

// node is one life of this node.
type node struct {
	o   Options
	cfg config.Node
	log zerolog.Logger

	run  runFile
	dir  string
	view view

	public netip.Addr // declared with the join

	session   *cluster.Session
	seed      *cluster.Seed
	table     *table.Writer
	sockets   *socket.Layer
	transport *transport.Layer
	overlay   []*net.TCPListener // opened, not served yet

	controller *controller.Controller // seeds only

	writing  sync.Mutex // held while the members' files are written
	written  memberFiles
	guided   atomic.Bool // a guest may read them
	tasks    sync.WaitGroup
	stopping context.CancelCauseFunc
	shown    []cluster.Member // in the table, since the last refresh
	reserved []cluster.Reserved
	status   statusBoard
	barrier  chan struct{} // closed when wait_for is met
	retiring sync.Once
	retired  chan struct{} // closed when the slot is not its own any more
	asking   sync.Once
	asked    chan struct{} // closed when the load is to be reported
	guest    *process.Guest
	draining sync.Once
	drainEnd time.Time // when what it relays is reset
	lived    bool      // it came to where its guest runs
}

// Causes of stopping.
var (
	errStopped  = errors.New("stopped")
	errDeadline = errors.New("the platform's deadline is near")
	errRetired  = errors.New("a successor has the slot")
)

// Run lives one node's life and returns the exit status for this process. It
// handles the signals of the process itself; ctx is for callers that want the
// node to end for other reasons.
func Run(ctx context.Context, o Options) (int, error) {
	n := &node{o: o, cfg: o.Config, barrier: make(chan struct{}), retired: make(chan struct{}), asked: make(chan struct{})}
	n.status.now.Ends = n.ends()
	n.log = o.Logger.With().Str("slot", o.Config.Slot).Logger()
	life, stop := context.WithCancelCause(ctx)
	n.stopping = stop
	defer stop(nil)
	defer n.handleSignals()()

	// The background tasks outlive the guest: its last connections drain.
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		end()
		n.tasks.Wait()
		n.close()
	}()
	if err := n.start(life, background); err != nil {
		if errors.Is(context.Cause(life), ErrConfigured) {
			return 0, ErrConfigured
		}
		if errors.Is(context.Cause(life), errStopped) {
			return n.interrupted(life), nil
		}
		return ExitFailed, fmt.Errorf("node %q: %w", n.cfg.Slot, err)
	}
	n.lived = true
	code, err := n.live(life)
	if errors.Is(context.Cause(life), ErrConfigured) {
		return 0, ErrConfigured
	}
	return code, err
}

// seedSweep is between looks for listeners that ended: a seed has no guest, and none.
const seedSweep = 2 * time.Second

// start brings the node up to where its guest can run.
func (n *node) start(ctx, background context.Context) error {
	if err := n.prepare(); err != nil {
		return err
	}
	var sweep time.Duration // its default
	if n.cfg.Kind == config.KindSeed {
		sweep = seedSweep
	}
	n.sockets = socket.New(socket.Options{
		Sweep: sweep, Adopt: n.run.alive(), Exclude: []uint16{uint16(n.cfg.Port)}, Shared: n.cfg.Shared, Underlay: n.loopback(),
		Budget: budget{n}, Logger: n.log,
	})
	if n.cfg.Kind == config.KindSeed {
		if err := n.startSeed(); err != nil {
			return err
		}
		n.task(func() error { return n.watchSeed(background) })
	}
	if err := n.makeController(); err != nil {
		return err
	}
	n.startTransport()
	if err := n.openOverlayPort(ctx, background); err != nil {
		return err
	}
	// What needs no membership is made while the seed is asked.
	ready := make(chan error, 1)
	go func() { ready <- n.openLocal() }()
	err := n.join(ctx)
	if localErr := <-ready; err == nil {
		err = localErr
	}
	if err != nil {
		return err
	}
	if n.o.Token != nil {
		n.transport.SetKey(n.session.PrefaceKey())
	}
	return n.serve(background)
}

// prepare finds the run files of a supervisor before this one, or begins anew.
func (n *node) prepare() error {
	var err error
	if n.dir, err = runDir(n.cfg); err != nil {
		return err
	}
	n.run, err = loadRun(n.cfg, n.dir)
	return err
}

func (n *node) startSeed() error {
	cidr, err := netip.ParsePrefix(n.cfg.CIDR)
	if err != nil {
		return fmt.Errorf("cidr: %w", err)
	}
	o := cluster.SeedOptions{Network: n.cfg.Network, Secret: n.o.Secret, CIDR: cidr, Logger: n.o.Logger, Claimed: controller.Claimed}
	switch {
	case n.replicated():
		number, err := n.cfg.SeedNumber()
		if err != nil {
			return err
		}
		o.Replica = &cluster.Replica{
			Number: number, Endpoints: n.cfg.SeedEndpoints, Dir: filepath.Join(n.cfg.StateDir, "raft"), Known: n.view.Members,
		}
	case n.cfg.StateDir != "":
		o.StatePath = filepath.Join(n.cfg.StateDir, "seed.json")
	}
	n.seed, err = cluster.NewSeed(o)
	return err
}

// replicated: this is one of the network's several seeds.
func (n *node) replicated() bool {
	return n.cfg.Kind == config.KindSeed && len(n.cfg.SeedEndpoints) > 1
}

// watchSeed ends the node when its seed cannot go on.
func (n *node) watchSeed(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.seed.Broken():
		return err
	}
}

func (n *node) startTransport() {
	o := transport.Options{
		Secret: n.o.Secret, Members: &n.view, Control: control{n}, Sockets: n.sockets,
		Reach: n.cfg.Reach, Transports: n.cfg.Transports, Own: n.ownPort,
		Relays: n.relays, Relay: n.relaying(), Logger: n.log,
		Sleepers: &sleepers{n: n, calls: map[string]*wakeCall{}},
	}
	if n.relaying() {
		n.status.now.Relay = &cluster.Relay{}
	}
	if n.seed != nil {
		o.ServeControl = n.seed.ServeConn
	}
	n.transport = transport.New(o)
}

// loopback is the node's own address on a loopback it shares; else the zero one.
func (n *node) loopback() netip.Addr {
	if !n.cfg.Shared {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(n.cfg.UnderlayAddress)
	return a
}

// budget is the transport's, for the sockets, which are there before it.
type budget struct{ n *node }

func (b budget) Take(n int) bool { return b.n.transport.Take(n) }
func (b budget) Give(n int)      { b.n.transport.Give(n) }

// control lets the transport call other nodes before and after the join.
type control struct{ n *node }

func (c control) Call(ctx context.Context, to uint32, method string, in, out any) error {
	s := c.n.view.current()
	if s == nil {
		return cluster.ErrDisconnected
	}
	return s.Call(ctx, to, method, in, out)
}

// endpointOf is where a laptop dials a seed: endpoints are in the order of the
// seeds' numbers.
func (n *node) endpointOf(seed cluster.Member) string {
	for i, endpoint := range n.cfg.SeedEndpoints {
		if len(n.cfg.SeedEndpoints) == 1 || seed.Slot == cluster.SeedName(i) {
			return endpoint
		}
	}
	return ""
}

// ownPort is the overlay port as the node itself dials it.
func (n *node) ownPort() netip.AddrPort {
	return netip.AddrPortFrom(n.view.underlay, uint16(n.cfg.Port))
}

// openOverlayPort listens for peers.
func (n *node) openOverlayPort(ctx, background context.Context) error {
	if n.hidden() {
		return nil
	}
	host := ""
	if a, err := netip.ParseAddr(n.cfg.UnderlayAddress); err == nil && a.IsLoopback() {
		host = a.String() // several nodes share this machine
	}
	if err := n.listen(ctx, background, host); err != nil || n.seed == nil {
		return err
	}
	return n.publish(background) // a seed's members may come in that way
}

// hidden: what reaches only seeds is dialled by nobody else.
func (n *node) hidden() bool { return n.cfg.Reach == config.ReachSeeds && n.seed == nil }

// openOwnPort lets a hidden node dial itself, where it may not do so natively.
func (n *node) openOwnPort(background context.Context) error {
	only := n.cfg.Transports
	dials := slices.Contains(only, config.TransportDirect) || slices.Contains(only, config.TransportPunch)
	if !n.hidden() || !dials || slices.Contains(only, config.TransportNative) {
		return nil
	}
	return n.listen(background, background, n.view.underlay.String())
}

func (n *node) listen(ctx, background context.Context, host string) error {
	ln, err := transport.ListenOverlay(ctx, net.JoinHostPort(host, strconv.Itoa(n.cfg.Port)))
	if err != nil {
		return fmt.Errorf("%w: another program or node uses port %d of this machine", err, n.cfg.Port)
	}
	if n.cfg.Kind == config.KindFunction {
		if err := transport.Share(ln); err != nil {
			return fmt.Errorf("share the overlay port: %w", err)
		}
	}
	if n.seed == nil {
		n.overlay = append(n.overlay, ln)
		return nil
	}
	n.task(func() error { return n.transport.Serve(background, ln) })
	n.listenForProbes(ctx, background, host)
	return nil
}

// serveOverlayPort begins with what has come in since the port was opened: before
// the join nobody could say whose it is.
func (n *node) serveOverlayPort(background context.Context) {
	for _, ln := range n.overlay {
		n.task(func() error { return n.transport.Serve(background, ln) })
	}
	n.overlay = nil
}

// listenForProbes opens a second port of a seed, best the one after the overlay
// port, for a firewall's rule. Without it NATs are known less well.
func (n *node) listenForProbes(ctx, background context.Context, host string) {
	for _, port := range []int{n.cfg.Port + 1, 0} {
		ln, err := transport.ListenOverlay(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			n.task(func() error { return n.transport.ServeProbes(background, ln) })
			return
		}
		n.log.Debug().Err(err).Int("port", port).Msg("no second port for probes")
	}
}

// keepMapped probes the NAT of a function, and keeps its overlay port reachable
// from where it was written to.
func (n *node) keepMapped(ctx context.Context) error {
	if n.cfg.Kind != config.KindFunction || n.hidden() || n.session.Self().NAT != cluster.NATBehind {
		return nil
	}
	return n.transport.KeepMapped(ctx, uint16(n.cfg.Port), func(r cluster.NATReport) {
		n.say(func(st *cluster.Status) { st.NATReport = &r })
	})
}

// openLocal makes what process monitors talk to.
func (n *node) openLocal() error {
	var err error
	n.table, err = table.NewWriter()
	return err
}

// serve starts all that runs beside the guest.
func (n *node) serve(background context.Context) error {
	n.learnUnderlay()
	if err := n.openOwnPort(background); err != nil {
		return err
	}
	if _, err := n.refresh(); err != nil {
		return err
	}
	ln, err := n.listenForMonitors()
	if err != nil {
		return err
	}
	if err := n.writeFiles(); err != nil {
		ln.Close()
		return err
	}
	n.serveOverlayPort(background)
	n.task(func() error { return ipc.Serve(background, ln, n.run.tokens(), handler{n}) })
	n.task(func() error { return n.sockets.Run(background) })
	n.task(func() error { return n.beat(background) })
	n.task(func() error { return n.follow(background) })
	n.task(func() error { return n.countPaths(background) })
	n.task(func() error { return n.streamMembers(background) })
	n.task(func() error { return n.announce(background) })
	n.task(func() error { return n.keepMapped(background) })
	n.task(func() error { return n.watchAddress(background) })
	n.task(func() error { return n.announceLoad(background) })
	n.task(func() error { return n.reportLoad(background) })
	n.task(func() error { return n.serveMetrics(background) })
	n.task(func() error { return n.awaitRetirement(background) })
	n.task(func() error { return n.runController(background) })
	if n.seed == nil {
		return n.publish(background)
	}
	return nil
}

// listenForMonitors opens the socket by which guests tell what they listen on. A guest
// that is taken up may have begun to listen when there was none.
func (n *node) listenForMonitors() (*net.UnixListener, error) {
	ln, err := ipc.Listen(n.run.IPC)
	if err != nil {
		return nil, fmt.Errorf("open the process monitors' socket: %w", err)
	}
	if n.run.alive() {
		n.sockets.Adopt()
	}
	return ln, nil
}

// task runs f in the background; its failure ends the node.
func (n *node) task(f func() error) {
	n.tasks.Go(func() {
		if err := f(); err != nil {
			n.log.Error().Err(err).Msg("a part of the supervisor failed")
			n.stopping(err)
		}
	})
}

// beat is the table's sign of life.
func (n *node) beat(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n.table.Beat()
		}
	}
}

// close gives back what start made.
func (n *node) close() {
	if n.session != nil {
		_ = n.session.Close()
	}
	if n.seed != nil { // while the other seeds can still hear that it hands over
		if err := n.seed.Close(); err != nil {
			n.log.Error().Err(err).Msg("seed closed")
		}
	}
	for _, ln := range n.overlay {
		ln.Close()
	}
	if n.transport != nil {
		n.transport.Close()
	}
	if n.table != nil {
		_ = n.table.Close()
	}
	if n.run.process != nil {
		select {
		case <-n.run.process.Done():
		default:
			return // the next supervisor takes the guest up
		}
	}
	if !n.lived && !n.run.temporary {
		return // what it found there is the next one's to go by
	}
	n.run.clean(n.dir)
}

// interrupted is the exit status of a node that was stopped before its guest ran.
func (n *node) interrupted(life context.Context) int {
	if n.cfg.Kind != config.KindClient {
		return 0
	}
	var by *stopSignal
	if !errors.As(context.Cause(life), &by) {
		by = &stopSignal{syscall.SIGTERM}
	}
	return 128 + int(by.signal)
}
