# 100.80.0.1, which a network gives to its first seed
output "first" {
  value = provider::boxer::overlay_address("100.80.0.0/16", 1)
}

# 100.80.255.254
output "last" {
  value = provider::boxer::overlay_address("100.80.0.0/16", -1)
}
