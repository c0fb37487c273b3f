// SPDX-License-Identifier: Apache-2.0

// Package transport makes TCP connections between nodes: native, direct (an
// authenticated preface to the peer's overlay port), punch (the same past NATs),
// and relay. What needs time is held: the guest's socket waits in SYN_SENT until
// the far end is ready, is then released, and spliced.
//
//	native  guest ------------------------------> guest
//	direct  guest --preface--> overlay port of peer --> its guest's queue
//	punch   the same from a port that the peer has opened its NAT for; or, held,
//	        we dial it from such a port, or it dials us back
//	relay   guest --> hold address | our splice --> node that pairs us with the peer
package transport

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

// Control reaches the supervisor of another node (cluster.Session does).
type Control interface {
	Call(ctx context.Context, to uint32, method string, in, out any) error
}

// Members tells who is in the network. Self is the zero Member before this
// node has joined.
type Members interface {
	Self() cluster.Member
	Members() []cluster.Member
	Member(id uint32) (cluster.Member, bool)
	Lookup(overlay netip.Addr) (cluster.Member, bool)
}

// Sockets is where connections that arrive for the guest go (socket.Layer).
type Sockets interface {
	// Deliver takes fd over when it returns nil; an error that wraps
	// ECONNREFUSED says that nobody listens.
	Deliver(ctx context.Context, fd int, local, peer netip.AddrPort) error
	Listening(port uint16) bool
	Remember(cookie uint64, local, peer netip.AddrPort, family uint16)
	Connecting(local, peer netip.AddrPort) bool
}

// RelayNode is a node that pairs connections, and where this node dials it.
type RelayNode struct {
	ID       uint32
	Endpoint string // host:port
	Seed     bool   // reached by who reaches nothing else
	Load     int    // connections it carries, as it said last
}

// Options of a Layer.
type Options struct {
	Secret  []byte
	Members Members
	Control Control
	Sockets Sockets
	// Reach of this node: config.ReachAny ("any") or config.ReachSeeds
	// ("seeds").
	Reach string
	// Transports that the guest's connections may use ("native", "direct",
	// "punch", "relay"), those to this node itself included; empty: all.
	Transports []string
	// Own is where this node's overlay port is dialled from the node itself, for
	// nodes that nobody else can dial; nil: as by the others.
	Own func() netip.AddrPort
	// Relays are the nodes this node can relay through.
	Relays func() []RelayNode
	// Relay makes this node pair the connections of others.
	Relay bool
	// Sleepers may be nil: nobody is started on use.
	Sleepers Sleepers
	// ServeControl gets the control connections that arrive on the overlay port
	// (TLS, nothing of it read yet), each on a goroutine of its own, and owns
	// them; nil: they are closed.
	ServeControl func(net.Conn)
	// HoldTimeout bounds how long a guest's connect is held; default 130 s,
	// which is a little more than the kernel's own limit.
	HoldTimeout time.Duration
	Logger      zerolog.Logger

	unproven int // for tests; default maxUnproven, less where descriptors are few
}

// Bounds of what others can make this node do.
const (
	maxUnproven = 512  // connections whose first bytes are awaited
	maxPassive  = 1024 // connections this node makes because a peer asked
	maxHolds    = 1024 // guest connections held
	firstBytes  = 5 * time.Second
	dialTimeout = 5 * time.Second
	startWait   = 10 * time.Second
)

// Layer is the transport layer of one node: endpoint, dialer and relay.
type Layer struct {
	o       Options
	key     atomic.Pointer[[]byte] // of prefaces
	ctx     context.Context        // of all that outlives a call
	cancel  context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex // of closed
	closed  bool

	nonces      *nonces
	passive     chan struct{}
	holds       chan struct{}
	short       chan struct{} // who waits for descriptors
	descriptors *budget
	places      atomic.Uint32 // counts through the hold addresses
	wall        wall
	backs       rendezvous // dial-backs we wait for
	relay       *relay
	probes      probes
	tried       *tried
	openings    openings
	turn        turn
	gate        *gate
	ports       ports
	tickets     tickets
	failed      failures
	paths       paths
	strangers   atomic.Uint64 // who knocked at the overlay port in vain
	quiet       quiet         // about who knocks in vain
	mute        quiet         // about peers that Transports bars
}

// New makes a Layer.
func New(o Options) *Layer {
	if o.HoldTimeout == 0 {
		o.HoldTimeout = 130 * time.Second
	}
	if o.unproven == 0 {
		o.unproven = max(1, min(maxUnproven, descriptorLimit()/8)) // of a function's: what is spare
	}
	descriptors := newBudget()
	l := &Layer{
		o:           o,
		nonces:      newNonces(),
		passive:     make(chan struct{}, maxPassive),
		holds:       make(chan struct{}, maxHolds),
		short:       make(chan struct{}, maxShort),
		descriptors: descriptors,
		backs:       rendezvous{waiting: map[session]chan *net.TCPConn{}},
		probes:      probes{kept: map[int]*mark{}, of: map[uint32]int{}, dials: map[uint32]*rate.Limiter{}, dialing: make(chan struct{}, maxProbeDials)},
		relay:       newRelay(descriptors.left / relayShare),
		tried:       newTried(),
		openings:    openings{by: map[netip.AddrPort]*opening{}, each: map[uint32]int{}},
		gate:        newGate(maxPunching),
		failed:      failures{by: map[uint32]failure{}},
		paths:       newPaths(),
		quiet:       quiet{sources: map[netip.Addr]time.Time{}},
		mute:        quiet{sources: map[netip.Addr]time.Time{}},
	}
	l.ports = ports{l: l}
	l.tickets = tickets{l: l, by: map[uint32]*stock{}}
	l.SetKey(cluster.PrefaceKey(o.Secret))
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// SetKey is for a node that does not know the secret: the seed tells it the key
// of the prefaces when it has joined, before its guest starts.
func (l *Layer) SetKey(key []byte) { l.key.Store(&key) }

// Close ends all that the Layer holds, splices or relays, and waits for it.
// Serve does so too when it ends.
func (l *Layer) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.relay.close()
	l.openings.close(l)
	l.probes.close()
	l.running.Wait()
	l.ports.close()
	l.tickets.close()
	l.wall.close()
}

// spawn runs f so that Close waits for it, or not at all after Close.
func (l *Layer) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.running.Go(f)
	}
	return !l.closed
}

// enter takes a place of a bounded number, if there is one.
func enter(places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		return false
	}
}

func leave(places chan struct{}) { <-places }
