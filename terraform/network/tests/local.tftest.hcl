# SPDX-License-Identifier: Apache-2.0
# For real, on this machine.

provider "boxer" { platform = "local" }

variables { name = "mod-net" }

run "one_seed" {
  assert {
    condition     = output.id == "mod-net"
    error_message = "The id is ${output.id}."
  }
  assert {
    condition     = length(output.seed_endpoints) == 1
    error_message = "One seed has the endpoints ${jsonencode(output.seed_endpoints)}."
  }
  assert {
    condition     = startswith(output.secret_ref, "file:")
    error_message = "The secret is at ${output.secret_ref}."
  }
}

run "tags_in_place" {
  variables { tags = { team = "shop" } }

  assert {
    condition     = boxer_network.this.tags_all["team"] == "shop"
    error_message = "The tags are ${jsonencode(boxer_network.this.tags_all)}."
  }
  assert {
    condition     = output.seed_endpoints == run.one_seed.seed_endpoints
    error_message = "Other tags have made another network."
  }
}

run "refuses_two_seeds" {
  command = plan
  variables { seeds = 2 }
  expect_failures = [var.seeds]
}
