# SPDX-License-Identifier: Apache-2.0

terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
provider "boxer" { platform = "local" }

variable "vms" {
  description = "How many VM nodes the logic tier has."
  type        = number
  default     = 1
}

locals {
  # Its name has PHP's version in it.
  logic = ["sh", "-c", "set -- /usr/sbin/php-fpm*; exec $1 --nodaemonize --fpm-config /var/task/fpm.conf"]
}

resource "boxer_network" "shop" { name = "burst" }

# The storage tier: a database and a cache.
resource "boxer_vm_node" "db" {
  network_id = boxer_network.shop.id
  name       = "db"
  source_dir = "${path.module}/store"
  command    = ["sh", "/var/task/db.sh"]
}
resource "boxer_vm_node" "cache" {
  network_id = boxer_network.shop.id
  name       = "cache"
  command    = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""]
}

# The logic tier: VM nodes for the steady load, functions for the bursts. Both are
# the service "logic", and run the same program.
resource "boxer_vm_node" "steady" {
  count      = var.vms
  network_id = boxer_network.shop.id
  name       = "steady-${count.index}"
  service    = "logic"
  source_dir = "${path.module}/logic"
  command    = local.logic
  wait_for   = { db = 1, cache = 1 }
}
resource "boxer_function_node" "burst" {
  network_id    = boxer_network.shop.id
  name          = "burst"
  service       = "logic"
  source_dir    = "${path.module}/logic"
  command       = local.logic
  memory_size   = 1769
  desired_count = 0 # boxer scale burst 12
}

# The web tier.
resource "boxer_vm_node" "front" {
  network_id = boxer_network.shop.id
  name       = "front"
  source_dir = "${path.module}/front"
  command    = ["sh", "/var/task/front.sh"]
  wait_for   = { logic = 1 }
  depends_on = [boxer_vm_node.steady]
}
