# SPDX-License-Identifier: Apache-2.0
# As far as the plan: of an account with AWS's default VPC, or an emulated one.

provider "boxer" { platform = "aws" }

variables {
  network_id = "mod-service"
  name       = "web"
  command    = ["httpd", "-DFOREGROUND"]
}

run "plan" {
  command = plan
  variables {
    vms       = 2
    functions = { max = 12, scale = { metric = "cpu", target = 0.5 }, command = ["/var/task/httpd"] }
    aws = {
      vm       = { architecture = "arm64", user_data = "#!/bin/sh\ndnf install -y httpd\n" }
      function = { architecture = "arm64" }
    }
  }
  assert {
    condition     = length(boxer_vm_node.steady) == 2 && alltrue([for node in boxer_vm_node.steady : node.user_data_size < 16384])
    error_message = "The user data does not fit."
  }
  assert {
    condition     = boxer_function_node.burst[0].architecture == "arm64" && boxer_function_node.burst[0].max_count == 12
    error_message = "The functions are not as said."
  }
}

run "image" {
  command = plan
  variables {
    source_dir = "."
    aws        = { function = { image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1" } }
  }
  assert {
    condition     = boxer_vm_node.steady[0].source_dir == "." && boxer_function_node.burst[0].source_dir == null
    error_message = "Only VMs have a source_dir beside an image."
  }
}
