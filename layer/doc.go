// SPDX-License-Identifier: Apache-2.0

// Package layer is what a node is made from: the layer zip (the supervisor and
// the process monitor behind a Lambda bootstrap) and the script that installs
// the same zip on a VM.
package layer
