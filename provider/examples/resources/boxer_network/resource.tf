resource "boxer_network" "shop" {
  name = "shop"
  cidr = "100.80.0.0/16"
}

# With a secret of its own, which is in neither plan nor state.
variable "secret" {
  type      = string
  ephemeral = true
}

resource "boxer_network" "mall" {
  name              = "mall"
  cidr              = "100.81.0.0/16"
  secret_wo         = var.secret
  secret_wo_version = 1 # count it up with each new secret
}
