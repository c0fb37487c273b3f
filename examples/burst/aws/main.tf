# SPDX-License-Identifier: Apache-2.0
# The burst on AWS: what differs from ../main.tf is the provider block, and where
# programs come from.

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
variable "logic_image" {
  description = "Container image, in ECR, with php-fpm, its modules, ../logic in /var/task, and Boxer."
  type        = string
}
variable "vms" {
  description = "How many VM nodes the logic tier has."
  type        = number
  default     = 1
}

locals {
  # Its name has PHP's version in it.
  logic = ["sh", "-c", "set -- /usr/sbin/php-fpm*; exec $1 --nodaemonize --fpm-config /var/task/fpm.conf"]

  # Installs Debian packages (Boxer is fetched with curl), and has none of them start a service of its own.
  install = <<-EOT
    #!/bin/sh
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends ca-certificates curl
  EOT
}

resource "boxer_network" "shop" { name = "burst" }

# The storage tier: a database and a cache.
resource "boxer_vm_node" "db" {
  network_id = boxer_network.shop.id
  name       = "db"
  source_dir = "${path.module}/../store"
  command    = ["sh", "/var/task/db.sh"]
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} mariadb-server-core\n"
}
resource "boxer_vm_node" "cache" {
  network_id = boxer_network.shop.id
  name       = "cache"
  command    = ["redis-server", "--port", "6379", "--protected-mode", "no", "--save", ""]
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} redis-server\n"
}

# The logic tier: VM nodes for the steady load, functions for the bursts. Both are
# the service "logic", and run the same program.
resource "boxer_vm_node" "steady" {
  count      = var.vms
  network_id = boxer_network.shop.id
  name       = "steady-${count.index}"
  service    = "logic"
  source_dir = "${path.module}/../logic"
  command    = local.logic
  wait_for   = { db = 1, cache = 1 }
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} php-fpm php-mysql php-redis\n"
}
resource "boxer_function_node" "burst" {
  network_id    = boxer_network.shop.id
  name          = "burst"
  service       = "logic"
  image_uri     = var.logic_image
  command       = local.logic
  memory_size   = 1769
  desired_count = 0 # boxer scale burst 12
}

# The web tier.
resource "boxer_vm_node" "front" {
  network_id = boxer_network.shop.id
  name       = "front"
  source_dir = "${path.module}/../front"
  command    = ["sh", "/var/task/front.sh"]
  wait_for   = { logic = 1 }
  image_id   = var.debian_image
  user_data  = "${chomp(local.install)} haproxy python3\n"
  depends_on = [boxer_vm_node.steady]
}
