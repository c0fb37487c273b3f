# By its network and its name.
terraform import boxer_function_node.logic shop,logic
