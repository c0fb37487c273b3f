# SPDX-License-Identifier: Apache-2.0

output "service" {
  description = "The name to look up."
  value       = var.name
}

output "vm_nodes" {
  description = "Overlay addresses of the VM nodes, by name."
  value       = { for node in boxer_vm_node.steady : node.name => one(node.overlay_addresses) }
}

output "function_node" {
  description = "Name of the function node, for boxer scale and standby_for; null without one."
  value       = one(boxer_function_node.burst[*].name)
}

output "running_functions" {
  description = "How many replicas ran when Terraform last looked."
  value       = var.functions == null ? 0 : one(boxer_function_node.burst[*].running_count)
}
