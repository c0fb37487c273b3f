resource "boxer_network" "shop" {
  name = "shop"
  cidr = "100.80.0.0/16"
}
