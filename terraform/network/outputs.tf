# SPDX-License-Identifier: Apache-2.0

output "id" {
  description = "What nodes take as network_id."
  value       = boxer_network.this.id
}

output "seed_endpoints" {
  description = "Where clients reach the seeds, seed-0 first, as host:port."
  value       = boxer_network.this.seed_endpoints
}

output "secret_ref" {
  description = "Where the network's secret is kept; not the secret."
  value       = boxer_network.this.secret_ref
}

output "layer_arns" {
  description = "The Lambda layers of the network's functions; empty on the local platform."
  value       = boxer_network.this.layer_arns
}
