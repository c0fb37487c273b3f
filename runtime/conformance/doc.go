// SPDX-License-Identifier: Apache-2.0

// Package conformance runs tests that others wrote, CPython's own, bare and then
// under Boxer on the same kind of host, and holds the two results against each
// other: what passes bare must pass under Boxer, on loopback and on every
// transport. `make conformance` prints the difference; docs/conformance.md says
// what it means.
package conformance
