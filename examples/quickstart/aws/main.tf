# SPDX-License-Identifier: Apache-2.0
# The quickstart on AWS: what differs from ../main.tf is the provider block, where
# programs come from, and who may connect.

terraform {
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}
provider "boxer" {
  platform = "aws"
  aws      = { region = var.region }
}

variable "region" {
  description = "Where it runs."
  type        = string
  default     = "us-east-1"
}
variable "debian_image" {
  description = "AMI of Debian 12, amd64, in that region: aws ssm get-parameter --name /aws/service/debian/release/12/latest/amd64"
  type        = string
}
variable "logic_package" {
  description = "The function's program and Python: boxer pack -o logic.zip -- /usr/bin/python3 ../app/app.py"
  type        = string
  default     = "logic.zip"
}
variable "visitors" {
  description = "Who may connect to the published port."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

locals {
  # Installs Debian packages (Boxer is fetched with curl), and has none of them start a service of its own.
  install = <<-EOT
    #!/bin/sh
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends ca-certificates curl
  EOT
}

resource "boxer_network" "shop" { name = "shop" }

resource "boxer_vm_node" "store" {
  network_id = boxer_network.shop.id
  name       = "store"
  command    = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""]
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} redis-server\n"
}
resource "boxer_function_node" "logic" {
  network_id    = boxer_network.shop.id
  name          = "logic"
  package       = var.logic_package # lands in /var/task
  command       = ["/var/task/usr/bin/python3", "/var/task/app/app.py"]
  desired_count = 2
  wait_for      = { store = 1 }
}
resource "boxer_vm_node" "front" {
  network_id = boxer_network.shop.id
  name       = "front"
  source_dir = "${path.module}/../front"
  command    = ["nginx", "-c", "/var/task/nginx.conf"] # upstream server logic:8080
  wait_for   = { logic = 2 }
  publish    = [{ port = 80, host_port = 8080, cidrs = var.visitors }]
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} nginx-light\n"
}

output "url" {
  value = "http://${boxer_vm_node.front.public_ip}:8080/"
}
