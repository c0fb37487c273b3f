// SPDX-License-Identifier: Apache-2.0

package localcloud

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// A network without namespaces has a block of this machine's loopback: its nodes
// are at 127.b.0.1 (the seed) and up, and the next block is where their
// connections to themselves come from (lib/shared.h). 127.66 to 127.68 are taken
// by signals, held connects and clients.
const (
	firstBlock = 128
	lastBlock  = 238
	blockHosts = 60000
	claimHost  = 65534 // 127.b.255.254, where the daemon shows that the block is taken
	claimPort  = 49151
)

func blockAddress(block, index int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(block), byte(index >> 8), byte(index)})
}

func claimBlock(block int) (net.Listener, error) {
	return net.Listen("tcp4", netip.AddrPortFrom(blockAddress(block, claimHost), claimPort).String())
}

// freeBlock finds a block that no other network of this machine has, the same one
// for the same directory if possible.
func freeBlock(dir netDir) (int, error) {
	h := fnv.New32a()
	h.Write([]byte(dir))
	const blocks = (lastBlock-firstBlock)/2 + 1
	first := int(h.Sum32() % blocks)
	for i := range blocks {
		block := firstBlock + 2*((first+i)%blocks)
		l, err := claimBlock(block)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("find loopback addresses for the nodes: %w", err)
		}
		return block, l.Close()
	}
	return 0, fmt.Errorf("all %d blocks of loopback addresses are in use: delete some networks", blocks)
}

// loopback is the underlay of plain processes: an address for each, and nothing
// between them.
type loopback struct {
	block int
	claim net.Listener
	hosts *indexes
}

func newLoopback(block, seeds int) (*loopback, error) {
	claim, err := claimBlock(block)
	if err != nil {
		return nil, fmt.Errorf("loopback addresses 127.%d.0.0/16 of this network: %w: another network or program has them: "+
			"stop it, or delete this network and create it again", block, err)
	}
	l := &loopback{block: block, claim: claim, hosts: newIndexes(blockHosts)}
	for range seeds {
		_, _ = l.hosts.take() // the first, from seedIndex on, are kept for the seeds
	}
	return l, nil
}

func (l *loopback) addSeed(number int) (*place, error) {
	return &place{address: blockAddress(l.block, seedIndex+number), release: func() {}}, nil
}

func (l *loopback) addHost() (*place, error) {
	index, err := l.hosts.take()
	if err != nil {
		return nil, err
	}
	return &place{address: blockAddress(l.block, index), release: sync.OnceFunc(func() { l.hosts.release(index) })}, nil
}

func (l *loopback) addSandbox(string, bool) (*place, error) { return l.addHost() }
