# By its name.
terraform import boxer_network.shop shop
