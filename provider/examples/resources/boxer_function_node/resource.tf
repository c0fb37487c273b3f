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
