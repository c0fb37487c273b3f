variable "database" {
  type = string

  validation {
    condition     = !provider::boxer::overlay_cidr_contains("100.80.0.0/16", var.database)
    error_message = "The database must be outside the overlay."
  }
}
