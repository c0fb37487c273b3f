# By its network and its name.
terraform import boxer_vm_node.store shop,store
