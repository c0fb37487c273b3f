// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxer-overlay/boxer/runtime/ipc"
)

// listener is a kernel listener of the guest.
type listener struct {
	local      netip.AddrPort
	v6, v6only bool
	device     uint32
	backlog    int
	born       uint64 // its number; another listen() does not change it
	missed     int    // looks in a row that did not find it
}

// Listen implements ipc.Handler: the guest announces a listener. The kernel
// knows best what it is, so it is asked at once.
func (l *Layer) Listen(_ context.Context, r ipc.ListenRequest) error {
	local := l.shown(r.Addr)
	l.mu.Lock()
	if l.listeners[r.Cookie] == nil && l.backlog(local.Port()) > 0 {
		// If those before it are gone, so are the connections that waited for
		// them.
		l.mu.Unlock()
		l.makeSure()
		l.mu.Lock()
	}
	if ip := local.Addr(); !ip.IsLoopback() && ip != l.underlay {
		// Until the kernel says more: an address of this node, maybe as the
		// guest sees it.
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), local.Port())
	}
	ls := &listener{local: local, v6: r.V6, v6only: r.V6Only, backlog: r.Backlog}
	if before := l.listeners[r.Cookie]; before != nil {
		ls.born = before.born
	} else {
		l.births++
		ls.born = l.births
	}
	l.listeners[r.Cookie] = ls
	l.mu.Unlock()
	l.sweep()
	return nil
}

// reaches tells whether signal connections reach ls: natively-only listeners
// (IPV6_V6ONLY, bound to a device or to another address) are not for Deliver.
// Call with l.mu held.
func (l *Layer) reaches(ls *listener) bool {
	ip := ls.local.Addr()
	switch {
	case ls.v6only || ls.device != 0:
		return false
	case l.o.Shared:
		return ip == l.underlay
	case !ip.IsValid() || ip.IsUnspecified() || !l.underlay.IsValid():
		return true
	}
	return ip == l.underlay
}

// backlog is how many connections may wait on port: the least of its
// listeners, as the kernel chooses among them. 0: nobody listens. Call with
// l.mu held.
func (l *Layer) backlog(port uint16) int {
	least := 0
	for _, ls := range l.listeners {
		if ls.local.Port() != port || !l.reaches(ls) {
			continue
		}
		if n := max(1, ls.backlog); least == 0 || n < least {
			least = n
		}
	}
	return least
}

// oldest is the number of the listener on port that is there for the longest
// time, 0 if nobody listens. Call with l.mu held.
func (l *Layer) oldest(port uint16) (born uint64) {
	for _, ls := range l.listeners {
		if ls.local.Port() == port && l.reaches(ls) && (born == 0 || ls.born < born) {
			born = ls.born
		}
	}
	return born
}

// target is where a signal connection to port goes. Call with l.mu held.
func (l *Layer) target(port uint16) netip.AddrPort {
	ip := l.underlay
	if !ip.IsValid() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		for _, ls := range l.listeners {
			if a := ls.local.Addr(); ls.local.Port() == port && l.reaches(ls) && a.Is4() && !a.IsUnspecified() {
				ip = a
			}
		}
	}
	return netip.AddrPortFrom(ip, l.KernelPort(port))
}

// Listeners are the ports that Deliver reaches, ascending.
func (l *Layer) Listeners() []uint16 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reached()
}

func (l *Layer) reached() []uint16 {
	var ports []uint16
	for _, ls := range l.listeners {
		if l.reaches(ls) {
			ports = append(ports, ls.local.Port())
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// settle draws the consequences of a change in listeners: what waits for none
// of those left is reset, as the kernel does, and readers of Changed are told.
// Call with l.mu held.
func (l *Layer) settle() {
	for port, q := range l.queues {
		l.reset(q, l.oldest(port))
	}
	ports := l.reached()
	if slices.Equal(ports, l.ports) {
		return
	}
	l.ports = ports
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// makeSure forgets listeners that are gone by now, of which sweep is sure only
// after two looks. Callers at one time share them.
func (l *Layer) makeSure() {
	enough := l.looks.Load() + 2
	for sure := false; !sure; {
		l.sweeping.Lock()
		if sure = l.looks.Load() >= enough; !sure {
			l.look()
		}
		l.sweeping.Unlock()
	}
}

// sweep compares the known listeners with the kernel's.
func (l *Layer) sweep() {
	l.sweeping.Lock()
	defer l.sweeping.Unlock()
	l.look()
}

// look is one sweep. Call with l.sweeping held.
func (l *Layer) look() {
	l.looks.Add(1)
	l.mu.Lock()
	before := l.births
	l.mu.Unlock()
	found, err := kernelSockets(maskListen)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if !l.blind {
			l.o.Logger.Warn().Err(err).Msg("closed listeners are noticed only when a connection for them arrives")
		}
		l.blind = true
		l.settle()
		return
	}
	here := make(map[uint64]bool, len(found))
	for _, s := range found {
		here[s.cookie] = true
		if ls := l.listeners[s.cookie]; ls != nil {
			l.update(ls, s)
		}
	}
	for cookie, ls := range l.listeners {
		if here[cookie] || ls.born > before {
			continue
		}
		// A list taken while sockets come and go may lack one: look twice.
		if ls.missed++; ls.missed >= 2 {
			delete(l.listeners, cookie)
		}
	}
	l.settle()
}

func (l *Layer) update(ls *listener, s kernelSocket) {
	ls.local, ls.v6, ls.v6only, ls.device = l.shown(s.local), s.v6, s.v6only, s.device
	ls.backlog, ls.missed = int(s.backlog), 0
}

// Adopt takes up the listeners that exist already, as New does if asked to: those of a
// guest that had nobody to tell of them.
func (l *Layer) Adopt() {
	if err := l.adopt(); err != nil {
		l.o.Logger.Warn().Err(err).Msg("listeners of a guest that ran before are not taken up")
	}
}

func (l *Layer) adopt() error {
	own, err := ownSockets()
	if err != nil {
		return err
	}
	found, err := kernelSockets(maskListen)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range found {
		if own[s.inode] || slices.Contains(l.o.Exclude, s.local.Port()) || l.listeners[s.cookie] != nil {
			continue
		}
		l.births++
		ls := &listener{born: l.births}
		l.update(ls, s)
		if l.reaches(ls) {
			l.listeners[s.cookie] = ls
		}
	}
	l.settle()
	return nil
}

// ownSockets are the inodes of this process's sockets.
func ownSockets() (map[uint32]bool, error) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("list own sockets: %w", err)
	}
	own := map[uint32]bool{}
	for _, e := range list {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		if number, ok := strings.CutPrefix(link, "socket:["); ok {
			if n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
				own[uint32(n)] = true
			}
		}
	}
	return own, nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
