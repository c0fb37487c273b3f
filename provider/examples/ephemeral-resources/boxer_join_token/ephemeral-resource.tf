ephemeral "boxer_join_token" "laptop" {
  network_id = boxer_network.shop.id
  name       = "laptop"
  duration   = "30m"
}

# Then, within half an hour: boxer run --join-token-file laptop.token -- psql -h store
resource "terraform_data" "laptop" {
  provisioner "local-exec" {
    command     = "umask 077; printf %s \"$TOKEN\" >laptop.token"
    environment = { TOKEN = ephemeral.boxer_join_token.laptop.token }
  }
}
