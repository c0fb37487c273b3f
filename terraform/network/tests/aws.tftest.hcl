# SPDX-License-Identifier: Apache-2.0
# As far as the plan: of an account with AWS's default VPC, or an emulated one.

provider "boxer" { platform = "aws" }

variables { name = "mod-net" }

run "plan" {
  command = plan
  variables {
    seeds = 3
    aws   = { name_prefix = "team-", log_retention_days = 30, seed_instance_type = "t3.nano" }
  }
  assert {
    condition     = boxer_network.this.name_prefix == "team-" && boxer_network.this.seed.instance_type == "t3.nano"
    error_message = "The network is not as said: ${jsonencode(boxer_network.this.seed)}."
  }
}

run "defaults" {
  command = plan
  assert {
    condition     = boxer_network.this.name_prefix == "boxer-" && boxer_network.this.log_retention_days == 14
    error_message = "The defaults are ${boxer_network.this.name_prefix} and ${boxer_network.this.log_retention_days} days."
  }
}
