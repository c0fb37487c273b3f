data "boxer_nodes" "logic" {
  network_id = "shop"
  service    = "logic"
  state      = "running"
}

output "logic_addresses" {
  value = { for node in data.boxer_nodes.logic.nodes : node.slot => node.overlay_address }
}
