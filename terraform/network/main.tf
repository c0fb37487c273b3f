# SPDX-License-Identifier: Apache-2.0

terraform {
  required_version = ">= 1.8"
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}

resource "boxer_network" "this" {
  name            = var.name
  cidr            = var.cidr
  port            = var.port
  runtime_version = var.runtime_version
  tags            = var.tags
  seed = {
    count         = var.seeds
    instance_type = var.aws.seed_instance_type
    subnet_id     = var.aws.seed_subnet_id
    ingress_cidrs = var.aws.ingress_cidrs
  }

  vpc_id               = var.aws.vpc_id
  subnet_ids           = var.aws.subnet_ids
  role_path            = var.aws.role_path
  permissions_boundary = var.aws.permissions_boundary
  name_prefix          = var.aws.name_prefix
  log_retention_days   = var.aws.log_retention_days
}
