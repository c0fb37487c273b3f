// SPDX-License-Identifier: Apache-2.0

package table

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var compareAddrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
var comparePrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// golden is what lib/test/golden/README says of table.bin.
func golden() Snapshot {
	a := func(n int) netip.Addr { return addr(fmt.Sprintf("100.80.0.%d", n)) }
	u := func(n int) netip.Addr { return addr(fmt.Sprintf("100.64.1.%d", n)) }
	return Snapshot{
		CIDR: netip.MustParsePrefix("100.80.0.0/16"), ID: 3, Name: "front", Network: "shop",
		Overlay: a(3), Underlay: u(3), Port: 7717,
		Members: []Member{
			{a(5), u(5), 5, 7717, TransportDirect, false, false},
			{a(2), u(2), 2, 7717, TransportNative, true, false},
			{a(4), netip.Addr{}, 4, 7717, TransportHold, false, false},
			{a(3), u(3), 3, 7717, TransportNative, true, false},
		},
		Names: map[string][]netip.Addr{
			"Front": {a(3)}, "logic": {a(4), a(5)}, "logic-0": {a(4)}, "logic-1": {a(5)}, "store": {a(2)},
			"node-2": {a(2)}, "node-3": {a(3)}, "node-4": {a(4)}, "node-5": {a(5)},
		},
	}
}

func open(t *testing.T) (*Writer, *Reader) {
	t.Helper()
	w, err := NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	r, err := NewReader(w.File())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return w, r
}

func TestGoldenBytes(t *testing.T) {
	want, err := os.ReadFile("../../lib/test/golden/table.bin")
	if err != nil {
		t.Fatal(err)
	}
	w, r := open(t)
	used, err := encode(w.draft, golden())
	if err != nil {
		t.Fatal(err)
	}
	w.store(used, 123456789)
	end := addrOff + used.addrs*addrSize
	if end != len(want) {
		t.Fatalf("used prefix is %d bytes, golden file has %d", end, len(want))
	}
	for i := range want {
		if r.mem[i] != want[i] {
			t.Fatalf("byte %d is %#02x, golden file has %#02x", i, r.mem[i], want[i])
		}
	}
}

func TestReadBack(t *testing.T) {
	w, r := open(t)
	if err := w.Publish(golden()); err != nil {
		t.Fatal(err)
	}
	got, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	want := golden()
	m := want.Members
	want.Members = []Member{m[1], m[3], m[2], m[0]}
	want.Names["front"] = want.Names["Front"]
	delete(want.Names, "Front")
	if diff := cmp.Diff(want, got, compareAddrs, comparePrefixes); diff != "" {
		t.Error(diff)
	}
	index, err := natives(r.mem)
	if err != nil || len(index) != 2 || index[0] != [2]netip.Addr{addr("100.64.1.2"), addr("100.80.0.2")} {
		t.Errorf("native index %v, %v", index, err)
	}
	// A smaller table leaves nothing of the larger one in sight.
	want.Members, want.Names = want.Members[:1], map[string][]netip.Addr{"only": {addr("100.80.0.2")}}
	if err := w.Publish(want); err != nil {
		t.Fatal(err)
	}
	if got, err = r.Read(); err != nil || len(got.Members) != 1 || len(got.Names) != 1 {
		t.Errorf("after shrinking: %+v, %v", got, err)
	}
}

// Two members may have one address: it stands for one of them, and what either
// connects natively comes from it.
func TestMembersBesideTheHolder(t *testing.T) {
	w, r := open(t)
	s := golden()
	s.Members = append(s.Members,
		Member{addr("100.80.0.2"), addr("100.64.1.9"), 9, 7717, TransportNative, true, true},
		Member{addr("100.80.0.4"), netip.Addr{}, 10, 7717, TransportHold, false, true})
	if err := w.Publish(s); err != nil {
		t.Fatal(err)
	}
	got, err := r.Read()
	if err != nil || len(got.Members) != 4 || got.Members[0].ID != 2 || got.Members[2].ID != 4 {
		t.Errorf("members %+v, %v", got.Members, err)
	}
	index, err := natives(r.mem)
	if err != nil || !slices.Contains(index, [2]netip.Addr{addr("100.64.1.9"), addr("100.80.0.2")}) || len(index) != 3 {
		t.Errorf("native index %v, %v", index, err)
	}
}

func TestOneUnderlayTranslatesOnce(t *testing.T) {
	w, r := open(t)
	s := golden()
	s.Members[0].Underlay, s.Members[0].Near = addr("100.64.1.2"), true
	if err := w.Publish(s); err != nil {
		t.Fatal(err)
	}
	index, err := natives(r.mem)
	if err != nil || len(index) != 2 || index[0][1] != addr("100.80.0.2") {
		t.Errorf("native index %v, %v", index, err)
	}
}

// What is dialled another way may still dial natively.
func TestNearTranslatesWhateverIsDialled(t *testing.T) {
	w, r := open(t)
	s := golden()
	for i := range s.Members {
		s.Members[i].Transport = TransportHold
	}
	if err := w.Publish(s); err != nil {
		t.Fatal(err)
	}
	if index, err := natives(r.mem); err != nil || len(index) != 2 {
		t.Errorf("native index %v, %v: want nodes 2 and 3", index, err)
	}
}

func TestSealed(t *testing.T) {
	w, _ := open(t)
	fd := int(w.File().Fd())
	if _, err := unix.Mmap(fd, 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("a second writable mapping: %v, want EPERM", err)
	}
	if _, err := unix.Pwrite(fd, []byte{1}, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	for _, size := range []int64{0, 2 * Size} {
		if err := unix.Ftruncate(fd, size); !errors.Is(err, unix.EPERM) {
			t.Errorf("resize to %d: %v, want EPERM", size, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("another seal: %v, want EPERM", err)
	}
	if err := w.Publish(golden()); err != nil {
		t.Errorf("the writer's own mapping: %v", err)
	}
}

func TestLimits(t *testing.T) {
	many := func(n int) []Member {
		list := make([]Member, n)
		for i := range list {
			list[i] = Member{Overlay: netip.AddrFrom4([4]byte{100, 80, byte(i >> 8), byte(i)}), ID: uint32(i)}
		}
		return list
	}
	names := func(n, each int) map[string][]netip.Addr {
		m := map[string][]netip.Addr{}
		for i := range n {
			m[fmt.Sprint("n", i)] = make([]netip.Addr, each)
		}
		return m
	}
	tests := []struct {
		name   string
		change func(*Snapshot)
		want   string // in the error; empty: none
	}{
		{"most members", func(s *Snapshot) { s.Members = many(MaxMembers) }, ""},
		{"members", func(s *Snapshot) { s.Members = many(MaxMembers + 1) }, "4097 members are too many"},
		{"most names", func(s *Snapshot) { s.Names = names(MaxNames, 1) }, ""},
		{"names", func(s *Snapshot) { s.Names = names(MaxNames+1, 1) }, "12289 names"},
		{"addresses", func(s *Snapshot) { s.Names = names(2, MaxAddrs/2+1) }, "16386 addresses"},
		{"longest name", func(s *Snapshot) { s.Name = strings.Repeat("x", 63) }, ""},
		{"long name", func(s *Snapshot) { s.Name = strings.Repeat("x", 64) }, "own name"},
		{"NUL", func(s *Snapshot) { s.Network = "a\x00b" }, "network name"},
		{"IPv6", func(s *Snapshot) { s.Overlay = addr("fd00::1") }, "not an IPv4 address"},
		{"twice", func(s *Snapshot) { s.Members[1].Overlay = s.Members[0].Overlay }, "held twice"},
		{"no CIDR", func(s *Snapshot) { s.CIDR = netip.Prefix{} }, "CIDR"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, r := open(t)
			if err := w.Publish(golden()); err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(r.mem)
			s := golden()
			test.change(&s)
			err := w.Publish(s)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if !bytes.Equal(before, r.mem) {
				t.Error("a refused snapshot changed the table")
			}
		})
	}
}

func TestBeatAndClose(t *testing.T) {
	w, r := open(t)
	if err := w.Publish(golden()); err != nil {
		t.Fatal(err)
	}
	first := r.Heartbeat()
	w.Beat()
	if second := r.Heartbeat(); first == 0 || second <= first {
		t.Errorf("heartbeat %d after %d", second, first)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	w.Beat()
	if err := w.Publish(golden()); err == nil {
		t.Error("published after Close")
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := r.Read(); err != nil {
		t.Errorf("a reader outlives the writer: %v", err)
	}
}

// A reader never sees parts of two snapshots.
func TestConsistentWhileWriting(t *testing.T) {
	w, r := open(t)
	version := func(id uint32) Snapshot {
		s := golden()
		s.ID = id
		for i := range s.Members {
			s.Members[i].ID = id
		}
		return s
	}
	if err := w.Publish(version(0)); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Uint32
	done := make(chan error, 1)
	go func() {
		defer close(done)
		for i := uint32(0); i < 300 || reads.Load() < 10; i++ { // the reader may get a CPU late
			if err := w.Publish(version(i)); err != nil {
				done <- err
				return
			}
		}
	}()
	for {
		s, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range s.Members {
			if m.ID != s.ID {
				t.Fatalf("torn read: own id %d beside member id %d", s.ID, m.ID)
			}
		}
		reads.Add(1)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// FuzzRoundTrip writes tables made of the fuzzer's words: what is published is
// read back, or refused.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint32(0x64500000), 16, uint32(1), "front", "shop", []byte("\x64\x50\x00\x02\x64\x40\x01\x02\x01\x02store\x00logic"))
	f.Add(uint32(0), 33, uint32(0), strings.Repeat("x", 64), "\x00", []byte{})
	draft := make([]byte, Size)
	f.Fuzz(func(t *testing.T, cidr uint32, bits int, id uint32, name, network string, words []byte) {
		ip := func(v uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		s := Snapshot{CIDR: netip.PrefixFrom(ip(cidr), bits), ID: id, Name: name, Network: network, Names: map[string][]netip.Addr{}}
		list, rest, _ := strings.Cut(string(words), "\x00")
		for i := 0; i+10 <= len(list) && i < 400; i += 10 {
			be := binary.BigEndian
			m := Member{Overlay: ip(be.Uint32([]byte(list[i:]))), Underlay: ip(be.Uint32([]byte(list[i+4:]))), ID: id + uint32(i),
				Transport: list[i+8] % 4, Near: list[i+9]%2 == 1}
			s.Members = append(s.Members, m)
			for word := range strings.SplitSeq(rest, "\x00") {
				s.Names[word] = append(s.Names[word], m.Overlay)
			}
		}
		if _, err := encode(draft, s); err != nil {
			return
		}
		got, err := decode(draft)
		if err != nil {
			t.Fatalf("%+v was published, but is %v", s, err)
		}
		if got.ID != s.ID || got.Name != s.Name || got.Network != s.Network || len(got.Members) != len(s.Members) {
			t.Errorf("%+v became %+v", s, got)
		}
		if want := s.CIDR.Masked(); want.Addr() != ip(0) && got.CIDR != want { // 0 stands for no address
			t.Errorf("CIDR %s became %s", want, got.CIDR)
		}
		for word, addrs := range s.Names {
			if back := got.Names[strings.ToLower(word)]; len(back) < len(addrs) {
				t.Errorf("name %q: %v became %v", word, addrs, back)
			}
		}
		for _, m := range s.Members {
			found := slices.ContainsFunc(got.Members, func(o Member) bool {
				return o.ID == m.ID && o.Overlay == m.Overlay && o.Transport == m.Transport
			})
			if !found {
				t.Errorf("%+v is not in %+v", m, got.Members)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	b := make([]byte, Size)
	used, err := encode(b, golden())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:headerSize])
	f.Add(b[:addrOff+used.addrs*addrSize])
	f.Add([]byte{})
	bad := bytes.Clone(b[:headerSize])
	bad[offNameOff+3], bad[offNameCount] = 0xff, 0xff
	f.Add(bad)
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := decode(in)
		if err == nil && len(s.Members) > MaxMembers {
			t.Errorf("%d members", len(s.Members))
		}
		if err != nil && !errors.Is(err, errDamaged) {
			t.Error(err)
		}
	})
}
