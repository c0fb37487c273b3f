# A network that another configuration made, or `boxer network create shop`.
data "boxer_network" "shop" {
  name = "shop"
}

resource "boxer_vm_node" "report" {
  network_id = data.boxer_network.shop.id
  name       = "report"
  command    = ["python3", "-m", "http.server", "8000"]
}
