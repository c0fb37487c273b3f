# SPDX-License-Identifier: Apache-2.0

terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
provider "boxer" { platform = "local" }

resource "boxer_network" "shop" { name = "shop" }

resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  command    = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""]
}
resource "boxer_function_node" "logic" {
  network_id    = boxer_network.shop.id
  name          = "logic"
  source_dir    = "${path.module}/app"            # lands in /var/task
  command       = ["python3", "/var/task/app.py"] # plain Python talking to host "store"
  desired_count = 2
  wait_for      = { store = 1 }
}
resource "boxer_vm_node" "front" {
  network_id = boxer_network.shop.id
  name       = "front"
  source_dir = "${path.module}/front"
  command    = ["nginx", "-c", "/var/task/nginx.conf"] # upstream server logic:8080
  wait_for   = { logic = 2 }
  publish    = [{ port = 80, host_port = 8080 }] # reachable from the laptop
}
