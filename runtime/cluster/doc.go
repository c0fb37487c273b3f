// SPDX-License-Identifier: Apache-2.0

// Package cluster knows who is in the network and where. A seed admits
// members, hands out ids and overlay addresses, and spreads membership; every
// other node keeps one session with it.
//
//	node                                        seed
//	 |--- TCP to its overlay port, TLS 1.3 ----->|  both certificates are signed by
//	 |                                           |  the key the network secret gives
//	 |--- join {hello, status} ----------------->|  slot free, resumed or taken over?
//	 |<-- {self, cidr, members ...} -------------|
//	 |<-- delta {members, left} (5 ms batches) --|
//	 |<-> ping, every 2 s, lost after 6 s ------>|
//	 |--- status, paths ------------------------>|
//	 |<-> call {to|from, method, body} --------->|  routed between members
//	 |--- leave -------------------------------->|
//
// A frame is a big-endian u32 length followed by that many bytes of JSON.
package cluster
