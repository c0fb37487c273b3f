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
  seed            = { count = var.seeds }
  tags            = var.tags
}
