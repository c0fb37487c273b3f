// SPDX-License-Identifier: Apache-2.0

// Package failover measures the paper's Figure 12 on examples/failover: a ZooKeeper
// ensemble of three VMs under reads, of which one is killed, replaced by its standby
// and handed back. `make failover` draws the figure; `make test` checks, in short,
// that it comes about and that no read is wrong (docs/failover.md).
package failover
