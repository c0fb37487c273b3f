variable "vpc_cidr" {
  type    = string
  default = "10.0.0.0/16"
}

resource "boxer_network" "shop" {
  name = "shop"
  cidr = "100.80.0.0/16"

  lifecycle {
    precondition {
      condition     = !provider::boxer::overlay_cidr_overlaps("100.80.0.0/16", var.vpc_cidr)
      error_message = "Guests could not reach those machines of the VPC that have an address of the overlay."
    }
  }
}
