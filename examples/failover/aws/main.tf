# SPDX-License-Identifier: Apache-2.0
# The failover on AWS: what differs from ../main.tf is the provider block, and where
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
variable "zookeeper_image" {
  description = "Container image, in ECR, with Java, ZooKeeper, ../zookeeper in /var/task, and Boxer."
  type        = string
}

locals {
  # Installs Debian packages (Boxer is fetched with curl), and has none of them start a service of its own.
  install = <<-EOT
    #!/bin/sh
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends ca-certificates curl
  EOT
}

resource "boxer_network" "ensemble" { name = "ensemble" }

resource "boxer_vm_node" "zk" {
  for_each      = toset(["1", "2", "3"])
  network_id    = boxer_network.ensemble.id
  name          = "zk-${each.key}"
  source_dir    = "${path.module}/../zookeeper" # lands in /var/task
  command       = ["sh", "/var/task/start.sh", each.key]
  image_id      = var.debian_image
  instance_type = "t3.small"
  user_data     = "${chomp(local.install)} libzookeeper-java default-jre-headless\n"
}
# Takes name and address of zk-3 when that VM dies, until it is back.
resource "boxer_function_node" "standby" {
  network_id  = boxer_network.ensemble.id
  name        = "standby"
  standby_for = boxer_vm_node.zk["3"].name
  image_uri   = var.zookeeper_image
  command     = ["sh", "/var/task/start.sh", "3"]
  memory_size = 2048
}
