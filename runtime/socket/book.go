// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/boxer-overlay/boxer/runtime/ipc"
	"github.com/boxer-overlay/boxer/runtime/raw"
	"golang.org/x/sys/unix"
)

// How long an entry is kept whose socket the kernel never listed: one that was
// gone before the first look, and one of another network namespace (published
// ports), which the kernel never lists here.
const (
	unseenAge  = 15 * time.Second
	foreignAge = 10 * time.Minute
	maxForeign = 1024
)

// book is what the guest should see of connections whose kernel addresses are
// others, by SO_COOKIE.
type book struct {
	mu      sync.Mutex
	entries map[uint64]*entry
	foreign int
	order   []uint64 // foreign ones, oldest first, with some that are gone
}

type entry struct {
	ipc.Addresses
	since   time.Time
	foreign bool
	// accepted: it was made by a peer.
	accepted bool
	seen     bool
	missed   int
}

// Remember notes what the guest should see for the socket with this cookie
// until the socket is gone. A port of 0 stands for the kernel's. family is
// AF_INET, AF_INET6 or 0.
func (l *Layer) Remember(cookie uint64, local, peer netip.AddrPort, family uint16) {
	l.book.put(cookie, &entry{Addresses: ipc.Addresses{Local: local, Peer: peer, Family: family}})
}

// rememberConn notes it for a connection about to be handed over.
func (l *Layer) rememberConn(fd int, a ipc.Addresses) {
	netns := raw.Uint64(fd, unix.SO_NETNS_COOKIE)
	l.book.put(raw.Uint64(fd, unix.SO_COOKIE), &entry{Addresses: a, foreign: netns != l.netns, accepted: true})
}

func (b *book) put(cookie uint64, e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if cookie == 0 {
		return
	}
	b.drop(cookie)
	if e.foreign {
		b.makeRoom()
		b.order = append(b.order, cookie)
		b.foreign++
	}
	e.since = time.Now()
	b.entries[cookie] = e
}

// makeRoom forgets the oldest foreign entries: a guest asks about a connection when
// it has just got it.
func (b *book) makeRoom() {
	for len(b.order) >= maxForeign {
		if e := b.entries[b.order[0]]; e != nil && e.foreign {
			b.drop(b.order[0])
		}
		b.order = slices.Delete(b.order, 0, 1)
	}
}

func (b *book) drop(cookie uint64) {
	if e := b.entries[cookie]; e != nil {
		if e.foreign {
			b.foreign--
		}
		delete(b.entries, cookie)
	}
}

// Address implements ipc.Handler.
func (l *Layer) Address(_ context.Context, cookie uint64) (ipc.Addresses, error) {
	a, ok := l.book.get(cookie)
	if ok && a.Local.Port() == 0 {
		// Asked for the first time since the kernel chose the port.
		l.readBook(false)
		a, ok = l.book.get(cookie)
	}
	if !ok {
		return ipc.Addresses{}, syscall.ENOENT
	}
	return a, nil
}

func (b *book) get(cookie uint64) (ipc.Addresses, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[cookie]; e != nil {
		return e.Addresses, true
	}
	return ipc.Addresses{}, false
}

// listAge is how old a list may be that connections are forgotten by.
const listAge = time.Second

// listing is the last list of all sockets: what two look for at about the same time
// is listed once.
type listing struct {
	mu    sync.Mutex
	begun time.Time
	all   []kernelSocket
}

// get gives a list that was begun no longer ago than old, and when that was.
func (g *listing) get(old time.Duration) (begun time.Time, all []kernelSocket, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil || time.Since(g.begun) > old {
		begun := time.Now()
		if all, err = kernelSockets(maskAll | maskListen); err != nil {
			return begun, nil, err
		}
		g.begun, g.all = begun, all
	}
	return g.begun, g.all, nil
}

// readBook fills in ports that the kernel chose and, if asked to, forgets the
// connections that it no longer has. That is asked at fixed times only: the names
// of a connection that was reset, which the kernel does not list, are its own for
// a while.
func (l *Layer) readBook(forget bool) {
	b := &l.book
	b.mu.Lock()
	some := len(b.entries) > 0
	b.mu.Unlock()
	if !some {
		return
	}
	old := time.Duration(0)
	if forget {
		old = listAge
	}
	started, found, err := l.listed.get(old)

	b.mu.Lock()
	defer b.mu.Unlock()
	here := make(map[uint64]bool, len(b.entries))
	for _, s := range found {
		if e := b.entries[s.cookie]; e != nil {
			here[s.cookie] = true
			e.seen, e.missed = true, 0
			if e.Local.Port() == 0 {
				e.Local = netip.AddrPortFrom(e.Local.Addr(), s.local.Port())
			}
		}
	}
	if !forget {
		return
	}
	for cookie, e := range b.entries {
		age := started.Sub(e.since)
		switch {
		case here[cookie]:
		case e.foreign:
			if age > foreignAge {
				b.drop(cookie)
			}
		case !e.seen || err != nil:
			if age > unseenAge && (err == nil || age > foreignAge) {
				b.drop(cookie)
			}
		default:
			// As with listeners: one look may miss a socket.
			if e.missed++; e.missed >= 2 {
				b.drop(cookie)
			}
		}
	}
}

// Connecting tells whether the kernel has a socket that waits in SYN_SENT from
// local to peer. When the kernel cannot say, it says yes.
func (l *Layer) Connecting(local, peer netip.AddrPort) bool {
	s, err := kernelSocketAt(unmapped(local), unmapped(peer))
	if err != nil {
		return !errors.Is(err, unix.ENOENT) || !canList()
	}
	return s.state == stateSynSent
}

// canList tells whether the kernel lists its sockets: to one that cannot, what is
// looked for does not exist either.
var canList = sync.OnceValue(func() bool {
	_, err := kernelSockets(maskListen)
	return err == nil
})

// NativePeers are the local and remote addresses of the connections, open or
// in TIME_WAIT, that were made from this node (their local port has no
// listener).
func (l *Layer) NativePeers() ([][2]netip.AddrPort, error) {
	_, found, err := l.listed.get(0)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	underlay := l.underlay
	l.mu.Unlock()
	// On a shared loopback the others' connections are in the list as well.
	foreign := func(a netip.Addr) bool { return l.o.Shared && a != underlay }
	listens := map[uint16]bool{}
	for _, s := range found {
		if s.state == stateListen && !foreign(s.local.Addr()) {
			listens[s.local.Port()] = true
		}
	}
	var made [][2]netip.AddrPort
	for _, s := range found {
		if 1<<s.state&maskConnected != 0 && !foreign(s.local.Addr()) && !listens[s.local.Port()] && !signalNet.Contains(s.local.Addr().Unmap()) {
			made = append(made, [2]netip.AddrPort{s.local, s.peer})
		}
	}
	return made, nil
}

// ownNetns tells this process's network namespace from others.
func ownNetns() (cookie uint64) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cookie, _ = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return cookie
}
