resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  command    = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""]
}

resource "boxer_vm_node" "front" {
  network_id = boxer_network.shop.id
  name       = "front"
  source_dir = "${path.module}/front"
  command    = ["nginx", "-c", "/var/task/nginx.conf"]
  wait_for   = { store = 1 }
  publish    = [{ port = 80, host_port = 8080 }]
  restart    = "on-failure"

  environment = { GREETING = "hello" }
  files       = { "/etc/shop/banner.txt" = "Welcome.\n" } # found there, though /etc is read-only

  tags     = { team = "web" }
  timeouts = { create = "5m" }
}
