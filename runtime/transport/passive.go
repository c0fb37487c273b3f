// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Control methods between supervisors.
const (
	methodListening = "listening"
	methodDialBack  = "dial_back"
	methodRelay     = "relay"
)

type listeningCall struct {
	Port uint16 `json:"port"`
}

type listeningAnswer struct {
	Listening bool `json:"listening"`
}

// meetCall asks a node to come to a meeting on behalf of its guest: at the
// caller's overlay port (Endpoint) or at a third node (Relay).
type meetCall struct {
	Session  []byte         `json:"session"`
	Port     uint16         `json:"port"` // the guest's
	From     netip.AddrPort `json:"from"` // overlay address of the caller's guest
	Endpoint string         `json:"endpoint,omitempty"`
	Relay    uint32         `json:"relay,omitempty"`
	Version  int            `json:"version,omitempty"` // of what will be said; 0: 1
}

type meetAnswer struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

const (
	statusOK          = "ok"
	statusRefused     = "refused"     // nobody listens
	statusUnreachable = "unreachable" // this node cannot come there
	statusUnable      = "unable"      // nor anywhere else, now; before it was known: as unreachable
)

// Handlers are the control methods this package answers, by name.
func (l *Layer) Handlers() map[string]func(ctx context.Context, from uint32, in json.RawMessage) (any, error) {
	return map[string]func(ctx context.Context, from uint32, in json.RawMessage) (any, error){
		methodListening: l.answerListening,
		methodPunch:     l.answerPunch,
		methodDialBack: func(ctx context.Context, from uint32, in json.RawMessage) (any, error) {
			return l.answerMeet(ctx, from, kindDialBack, in)
		},
		methodRelay: func(ctx context.Context, from uint32, in json.RawMessage) (any, error) {
			return l.answerMeet(ctx, from, kindRelayPassive, in)
		},
	}
}

func (l *Layer) answerListening(_ context.Context, _ uint32, in json.RawMessage) (any, error) {
	var call listeningCall
	if err := json.Unmarshal(in, &call); err != nil {
		return nil, fmt.Errorf("%s: %w", methodListening, err)
	}
	return listeningAnswer{Listening: l.o.Sockets.Listening(call.Port)}, nil
}

// answerMeet goes to a meeting: it dials, and delivers to the guest once the
// other side says start.
func (l *Layer) answerMeet(ctx context.Context, from uint32, k kind, in json.RawMessage) (any, error) {
	var call meetCall
	if err := json.Unmarshal(in, &call); err != nil {
		return nil, fmt.Errorf("meet: %w", err)
	}
	if len(call.Session) != len(session{}) || !call.From.IsValid() {
		return nil, fmt.Errorf("meet: session of %d bytes, from %q", len(call.Session), call.From)
	}
	if theirs := max(call.Version, 1); theirs != version {
		return meetAnswer{Status: statusUnable, Reason: versionError(theirs).Error()}, nil
	}
	if !l.o.Sockets.Listening(call.Port) {
		return meetAnswer{Status: statusRefused}, nil
	}
	endpoint, err := l.place(from, k, call)
	if err != nil {
		return meetAnswer{Status: statusUnreachable, Reason: err.Error()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, relayDial)
	defer cancel()
	if !l.enterMeeting(ctx) {
		return meetAnswer{Status: statusUnable, Reason: "too many connections are being made, or wait for the guest"}, nil
	}
	self := l.o.Members.Self()
	own := netip.AddrPortFrom(self.OverlayAddress, call.Port)
	conn, err := l.dial(ctx, endpoint, preface{kind: k, id: self.ID, src: own, dst: call.From, session: session(call.Session)})
	if err != nil {
		l.leaveMeeting()
		return meetAnswer{Status: statusUnreachable, Reason: err.Error()}, nil
	}
	if !l.spawn(func() { l.join(conn, own, call.From) }) {
		l.leaveMeeting()
		conn.Close()
		return meetAnswer{Status: statusUnable, Reason: "this node is leaving"}, nil
	}
	return meetAnswer{Status: statusOK}, nil
}

// meetingWait leaves most of relayDial for the dial.
const meetingWait = relayDial / 3

// enterMeeting takes a place and a descriptor for a meeting. What is short now may not
// be in a moment.
func (l *Layer) enterMeeting(ctx context.Context) bool {
	if !enter(l.passive) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, meetingWait)
	defer cancel()
	for !l.descriptors.takeMeeting() {
		select {
		case <-time.After(publishRetry):
		case <-ctx.Done():
			leave(l.passive)
			return false
		}
	}
	return true
}

func (l *Layer) leaveMeeting() {
	l.descriptors.give(1)
	leave(l.passive)
}

// place is where a meeting is: at a seed, or at the caller's own overlay port,
// for nobody can have others dialled.
func (l *Layer) place(from uint32, k kind, call meetCall) (endpoint string, err error) {
	if k == kindDialBack {
		if l.o.Reach != reachAny {
			return "", fmt.Errorf("this node reaches seeds only")
		}
		m, ok := l.o.Members.Member(from)
		if own := l.placeOf(l.o.Members.Self(), m); !ok || own.String() != call.Endpoint {
			return "", fmt.Errorf("endpoint %q is not the caller's, which is %s", call.Endpoint, own)
		}
		return call.Endpoint, nil
	}
	for _, relay := range l.relays() {
		if relay.ID == call.Relay {
			return relay.Endpoint, nil
		}
	}
	return "", fmt.Errorf("node %d is no relay that is known here", call.Relay)
}

// sayVersion logs that a meeting fails for as long as releases differ.
func (l *Layer) sayVersion(with net.Conn, err error) {
	if at := remote(with); errors.Is(err, errVersion) && l.mute.speak(at.Addr()) {
		l.o.Logger.Warn().Err(err).Stringer("at", at).Msg("connections through this node cannot be made")
	}
}

// join waits for the other side and hands the connection to the guest, whose others
// may have to be accepted first: the far end has it already.
func (l *Layer) join(conn *net.TCPConn, local, peer netip.AddrPort) {
	err := await(l.ctx, conn, start)
	leave(l.passive)
	defer l.descriptors.give(1) // what it needs in the queue is counted there
	if err != nil {
		l.sayVersion(conn, err)
		l.o.Logger.Debug().Err(err).Stringer("peer", peer).Msg("meeting failed")
		conn.Close()
		return
	}
	fd, err := plain(conn, l.crossesNAT(peer.Addr()))
	if err != nil {
		reset(conn)
		return
	}
	if err := l.deliverSoon(l.ctx, fd, local, peer, syscall.EMFILE); err != nil {
		l.resetPlain(fd, err)
	}
}
