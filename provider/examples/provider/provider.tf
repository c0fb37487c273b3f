terraform {
  required_providers {
    boxer = { source = "boxer-overlay/boxer" }
  }
}

provider "boxer" {
  platform = "local"
}

resource "boxer_network" "shop" {
  name = "shop"
}
