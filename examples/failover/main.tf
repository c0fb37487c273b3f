# SPDX-License-Identifier: Apache-2.0

terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
provider "boxer" { platform = "local" }

resource "boxer_network" "ensemble" { name = "ensemble" }

resource "boxer_vm_node" "zk" {
  for_each   = toset(["1", "2", "3"])
  network_id = boxer_network.ensemble.id
  name       = "zk-${each.key}"
  source_dir = "${path.module}/zookeeper" # lands in /var/task
  command    = ["sh", "/var/task/start.sh", each.key]
}
# Takes name and address of zk-3 when that VM dies, until it is back.
resource "boxer_function_node" "standby" {
  network_id  = boxer_network.ensemble.id
  name        = "standby"
  standby_for = boxer_vm_node.zk["3"].name
  source_dir  = "${path.module}/zookeeper"
  command     = ["sh", "/var/task/start.sh", "3"]
  memory_size = 2048
}
