# SPDX-License-Identifier: Apache-2.0

variable "network_id" {
  description = "The network to join: the id of a boxer_network, or of the module network."
  type        = string
}

variable "name" {
  description = "Name of the service: what other nodes look up. VM nodes are called <name>-vm-0, ..., functions <name>-burst-0, ..."
  type        = string
}

variable "command" {
  description = "The guest: a program and its arguments."
  type        = list(string)
}

variable "vms" {
  description = "How many VM nodes serve the steady load."
  type        = number
  default     = 1

  validation {
    condition     = var.vms >= 0 && floor(var.vms) == var.vms
    error_message = "Choose 0 or more whole VM nodes."
  }
}

variable "functions" {
  description = "Function nodes: count keeps as many; without it the controller has min to max of them, as scale, boxer scale or the HTTP hook say. command and package: where they differ from the VMs' (boxer pack). null: no function nodes."
  type = object({
    count       = optional(number)
    min         = optional(number)
    max         = optional(number)
    scale       = optional(object({ metric = string, target = number, cooldown = optional(number) }))
    budget      = optional(object({ gb_seconds_per_day = number }))
    memory_size = optional(number)
    timeout     = optional(number)
    command     = optional(list(string))
    package     = optional(string)
  })
  default = { min = 0 }
}

variable "source_dir" {
  description = "Directory whose contents the guest finds in /var/task."
  type        = string
  default     = null
}

variable "package" {
  description = "Zip file with these contents, instead of source_dir."
  type        = string
  default     = null
}

variable "environment" {
  description = "Variables of the guest's environment."
  type        = map(string)
  default     = null
}

variable "files" {
  description = "Files of the node, as absolute path and content."
  type        = map(string)
  default     = null
}

variable "working_dir" {
  description = "Directory that the guest starts in."
  type        = string
  default     = null
}

variable "user" {
  description = "User of the guest on VM nodes."
  type        = string
  default     = null
}

variable "wait_for" {
  description = "Services, and how many of each, that must be there before the guest starts."
  type        = map(number)
  default     = null
}

variable "restart" {
  description = "What happens when the guest ends: no, on-failure or always."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of every node."
  type        = map(string)
  default     = null
}

variable "aws" {
  description = "What only AWS has, for each kind of node: as of boxer_vm_node and boxer_function_node."
  type = object({
    vm = optional(object({
      image_id           = optional(string)
      instance_type      = optional(string)
      architecture       = optional(string)
      subnet_id          = optional(string)
      spot               = optional(bool)
      root_volume        = optional(object({ size = optional(number), type = optional(string), iops = optional(number), encrypted = optional(bool) }))
      key_name           = optional(string)
      instance_profile   = optional(string)
      security_group_ids = optional(list(string))
      user_data          = optional(string)
    }), {})
    function = optional(object({
      architecture         = optional(string)
      image_uri            = optional(string)
      subnet_ids           = optional(list(string))
      security_group_ids   = optional(list(string))
      role_arn             = optional(string)
      reserved_concurrency = optional(number)
    }), {})
  })
  default = {}
}
