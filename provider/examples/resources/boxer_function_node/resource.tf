resource "boxer_function_node" "logic" {
  network_id    = boxer_network.shop.id
  name          = "logic"
  source_dir    = "${path.module}/app"
  command       = ["python3", "/var/task/app.py"]
  desired_count = 2
  memory_size   = 512
  timeout       = 900
  wait_for      = { store = 1 }
}

# As many as there is to do, which the network's seed finds out.
resource "boxer_function_node" "images" {
  network_id = boxer_network.shop.id
  name       = "images"
  source_dir = "${path.module}/images"
  command    = ["python3", "/var/task/serve.py"]
  min_count  = 1
  max_count  = 12
  scale      = { metric = "cpu", target = 0.5, cooldown = 120 }
  budget     = { gb_seconds_per_day = 50000 }
}
