// SPDX-License-Identifier: Apache-2.0

// Package boot has the tests that boot the user data of a VM: cloud-init and systemd run in
// a root made for it, against an instance metadata service, Lambda and Systems Manager that
// answer as the documented ones do, or fail as they may.
package boot
