# SPDX-License-Identifier: Apache-2.0

terraform {
  required_version = ">= 1.8"
  required_providers { boxer = { source = "boxer-overlay/boxer" } }
}

# The steady load.
resource "boxer_vm_node" "steady" {
  count       = var.vms
  network_id  = var.network_id
  name        = "${var.name}-vm-${count.index}"
  service     = var.name
  command     = var.command
  environment = var.environment
  files       = var.files
  working_dir = var.working_dir
  user        = var.user
  source_dir  = var.source_dir
  package     = var.package
  wait_for    = var.wait_for
  restart     = var.restart
  tags        = var.tags
}

# Bursts, and what takes over from a VM that died.
resource "boxer_function_node" "burst" {
  count         = var.functions == null ? 0 : 1
  network_id    = var.network_id
  name          = "${var.name}-burst"
  service       = var.name
  command       = var.command
  environment   = var.environment
  files         = var.files
  working_dir   = var.working_dir
  source_dir    = var.source_dir
  package       = var.package
  wait_for      = var.wait_for
  restart       = var.restart
  tags          = var.tags
  desired_count = var.functions.count
  min_count     = var.functions.min
  max_count     = var.functions.max
  scale         = var.functions.scale
  budget        = var.functions.budget
  memory_size   = var.functions.memory_size
  timeout       = var.functions.timeout
}
