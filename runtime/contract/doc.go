// SPDX-License-Identifier: Apache-2.0

// Package contract holds only tests of the promise to guests: a stream socket
// on an overlay address behaves as a kernel socket does, on every transport.
// Real programs run as guests; what they see is compared with what they see
// without Boxer in the same run.
package contract
