// SPDX-License-Identifier: Apache-2.0

// Package e2e holds only tests of the whole: real programs on nodes of the
// local platform, driven through the boxer binary that `make build` leaves in
// bin/ (or in $BOXER_BIN).
package e2e
