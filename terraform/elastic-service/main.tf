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

  image_id           = var.aws.vm.image_id
  instance_type      = var.aws.vm.instance_type
  architecture       = var.aws.vm.architecture
  subnet_id          = var.aws.vm.subnet_id
  spot               = var.aws.vm.spot
  root_volume        = var.aws.vm.root_volume
  key_name           = var.aws.vm.key_name
  instance_profile   = var.aws.vm.instance_profile
  security_group_ids = var.aws.vm.security_group_ids
  user_data          = var.aws.vm.user_data
}

# Bursts, and what takes over from a VM that died.
resource "boxer_function_node" "burst" {
  count         = var.functions == null ? 0 : 1
  network_id    = var.network_id
  name          = "${var.name}-burst"
  service       = var.name
  command       = var.functions.command != null ? var.functions.command : var.command
  environment   = var.environment
  files         = var.files
  working_dir   = var.working_dir
  source_dir    = local.packed ? null : var.source_dir
  package       = local.packed ? var.functions.package : var.package
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

  architecture         = var.aws.function.architecture
  image_uri            = var.aws.function.image_uri
  subnet_ids           = var.aws.function.subnet_ids
  security_group_ids   = var.aws.function.security_group_ids
  role_arn             = var.aws.function.role_arn
  reserved_concurrency = var.aws.function.reserved_concurrency
}

locals {
  # Functions have what was packed for them, or their image's.
  packed = var.functions != null && (try(var.functions.package, null) != null || var.aws.function.image_uri != null)
}
