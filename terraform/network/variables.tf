# SPDX-License-Identifier: Apache-2.0

variable "name" {
  description = "Name of the network, unique on its platform."
  type        = string
}

variable "cidr" {
  description = "IPv4 range of overlay addresses. Default: the provider's, 100.80.0.0/16."
  type        = string
  default     = null
}

variable "port" {
  description = "TCP port of the supervisors. Default: the provider's, 7717."
  type        = number
  default     = null
}

variable "runtime_version" {
  description = "Version of Boxer that the nodes run. Default: the provider's own when the network is made."
  type        = string
  default     = null
}

variable "seeds" {
  description = "How many seeds the network runs: 1, or 3 so that nodes can join while one of them is away."
  type        = number
  default     = 1

  validation {
    condition     = contains([1, 3], var.seeds)
    error_message = "Of three seeds one may be away; two would both be needed: choose 1 or 3."
  }
}

variable "tags" {
  description = "Tags of everything that the network is made of."
  type        = map(string)
  default     = {}
}

variable "aws" {
  description = "What only AWS has: as of boxer_network and its seed."
  type = object({
    vpc_id               = optional(string)
    subnet_ids           = optional(list(string))
    role_path            = optional(string)
    permissions_boundary = optional(string)
    name_prefix          = optional(string)
    log_retention_days   = optional(number)
    seed_instance_type   = optional(string)
    seed_subnet_id       = optional(string)
    ingress_cidrs        = optional(list(string))
  })
  default = {}
}
