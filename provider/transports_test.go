// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"testing"
)

const (
	answer = `["python3", "-c", "import socket\ns=socket.create_server(('',8080))\nwhile 1: s.accept()[0].sendall(b'hi')"]`
	// ask prints for each peer how connecting to it went, and then listens.
	ask = `["python3", "-uc", "import socket,time\ndef ask(n):\n try:\n  with socket.create_connection((n,8080),10) as s: return s.recv(2).decode()\n except OSError as e: return e.strerror\n` +
		`print('; '.join(n+': '+ask(n) for n in ('store','logic')))\ns=socket.create_server(('',8080))\ntime.sleep(1000)"]`
)

// TestAccTransports restricts what a node dials, and changes that in place.
func TestAccTransports(t *testing.T) {
	c := newCloud(t)
	w := c.workspace()
	config := func(transports string) {
		w.configure(c.block() + shop + vm("store", answer, "") + function("logic", answer, "") +
			vm("front", ask, "wait_for = { store = 1, logic = 1 }\n"+transports))
		w.apply()
		w.emptyPlan()
	}
	config(`transports = ["native"]`)
	c.says("front", "store: hi; logic: No route to host")
	front := c.members("shop")["front"]
	config(`transports = ["native", "relay"]`)
	c.says("front", "store: hi; logic: hi")
	config(`transports = ["direct"]`)
	c.says("front", "store: hi; logic: No route to host")
	config(`transports = ["punch"]`)
	c.says("front", "store: hi; logic: hi")
	config("")
	c.says("front", "store: hi; logic: hi")
	if now := c.members("shop")["front"]; now.ID != front.ID || now.OverlayAddress != front.OverlayAddress {
		t.Errorf("another node: %+v, was %+v", now, front)
	}
	w.destroy()
}
