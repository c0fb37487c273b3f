// SPDX-License-Identifier: Apache-2.0

package ipc

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"syscall"
	"testing"
)

func token(first byte) (t Token) {
	for i := range t {
		t[i] = first + byte(i)
	}
	return t
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// What lib/test/golden/README says of the two frames.
func goldenRequest() Request {
	return Request{Op: OpConnect, Token: token(0), Cookie: 0x1122334455667788, Flags: FlagNonblock | FlagV6,
		Addr: ap("100.80.0.7:6379"), Backlog: 511, PID: 4242, CPU: 3}
}

func goldenResponse() Response {
	preface := make([]byte, 96)
	for i := range preface {
		preface[i] = byte(i)
	}
	return Response{Op: OpConnect, Token: token(0x10), Action: ActionDirect, Addr: ap("100.64.1.2:7717"), Family: syscall.AF_INET,
		Local: ap("100.80.0.3:40000"), Peer: ap("100.80.0.7:6379"), Preface: preface}
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../../lib/test/golden/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenFrames(t *testing.T) {
	want := golden(t, "request.bin")
	if got := AppendRequest(nil, goldenRequest()); !bytes.Equal(got, want) {
		t.Errorf("request\n%x, golden file has\n%x", got, want)
	}
	if r, err := ParseRequest(want); err != nil || r != goldenRequest() {
		t.Errorf("request %+v, %v", r, err)
	}
	want = golden(t, "response.bin")
	if got := AppendResponse(nil, goldenResponse()); !bytes.Equal(got, want) {
		t.Errorf("response\n%x, golden file has\n%x", got, want)
	}
	if r, err := ParseResponse(want); err != nil || !reflect.DeepEqual(r, goldenResponse()) {
		t.Errorf("response %+v, %v", r, err)
	}
}

func TestErrorsSurvive(t *testing.T) {
	r, err := ParseResponse(AppendResponse(nil, Response{Op: OpConnect, Err: syscall.ECONNREFUSED}))
	if err != nil || r.Err != syscall.ECONNREFUSED || r.Preface != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestSynsSurvive(t *testing.T) {
	frame := AppendResponse(nil, Response{Op: OpConnect, Action: ActionHold, Syns: 3})
	if r, err := ParseResponse(frame); err != nil || r.Syns != 3 || frame[54] != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	good := AppendRequest(nil, goldenRequest())
	f.Add(good)
	f.Add(good[:95])
	f.Add(append(bytes.Clone(good), 0))
	f.Add(bytes.Repeat([]byte{0xff}, RequestSize))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseRequest(in)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Error(err)
			}
			return
		}
		again, err := ParseRequest(AppendRequest(nil, r))
		if err != nil || again != r {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	good := AppendResponse(nil, goldenResponse())
	f.Add(good)
	f.Add(good[:1])
	long := bytes.Clone(good)
	long[52] = 129
	f.Add(long)
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseResponse(in)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Error(err)
			}
			return
		}
		again, err := ParseResponse(AppendResponse(nil, r))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}
