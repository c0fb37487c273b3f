# SPDX-License-Identifier: Apache-2.0
# For real, on this machine.

provider "boxer" { platform = "local" }

variables {
  name    = "web"
  command = ["python3", "-m", "http.server", "8000"]
}

run "network" {
  module { source = "../network" }
  variables { name = "mod-service" }
}

run "vms_and_a_function" {
  variables {
    network_id = run.network.id
    functions  = { count = 1 }
  }
  assert {
    condition     = join(" ", keys(output.vm_nodes)) == "web-vm-0" && output.running_functions == 1
    error_message = "There are ${jsonencode(output.vm_nodes)} and ${output.running_functions} functions."
  }
  assert {
    condition     = alltrue([for node in boxer_vm_node.steady : node.service == output.service]) && boxer_function_node.burst[0].service == output.service
    error_message = "Not all of them are the service."
  }
}

run "more_of_both" {
  variables {
    network_id = run.network.id
    vms        = 2
    functions  = { count = 2 }
  }
  assert {
    condition     = length(output.vm_nodes) == 2 && output.running_functions == 2
    error_message = "There are ${jsonencode(output.vm_nodes)} and ${output.running_functions} functions."
  }
  assert {
    condition     = output.vm_nodes["web-vm-0"] == run.vms_and_a_function.vm_nodes["web-vm-0"]
    error_message = "The first VM node has another address."
  }
}

run "only_vms" {
  variables {
    network_id = run.network.id
    functions  = null
  }
  assert {
    condition     = length(output.vm_nodes) == 1 && output.function_node == null && output.running_functions == 0
    error_message = "There are ${jsonencode(output.vm_nodes)} and ${output.running_functions} functions."
  }
}
