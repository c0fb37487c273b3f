# A plain instance and a plain function of the AWS provider, as nodes of the network.
data "boxer_node_bootstrap" "web" {
  network_id = boxer_network.shop.id
  name       = "web"
  kind       = "vm"
  command    = ["nginx", "-g", "daemon off;"]
  user_data  = <<-EOT
    #!/bin/sh
    dnf install -y nginx
  EOT
}

data "boxer_node_bootstrap" "job" {
  network_id = boxer_network.shop.id
  name       = "job"
  kind       = "function"
  command    = ["/var/task/job", "--server", "web"]
}

# resource "aws_instance" "web" {
#   ami                    = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
#   instance_type          = "t3.small"
#   user_data_base64       = data.boxer_node_bootstrap.web.user_data_base64
#   iam_instance_profile   = data.boxer_node_bootstrap.web.instance_profile
#   vpc_security_group_ids = [data.boxer_node_bootstrap.web.security_group_id]
# }
#
# resource "aws_lambda_function" "job" {
#   function_name    = "job"
#   runtime          = "provided.al2023"
#   handler          = "boxer"
#   timeout          = 900
#   filename         = "job.zip"
#   source_code_hash = filebase64sha256("job.zip")
#   role             = data.aws_iam_role.job.arn
#   layers           = [data.boxer_node_bootstrap.job.layer_arn]
# }
#
# data "aws_iam_role" "job" { name = data.boxer_node_bootstrap.job.role_name }
#
# Invoke it asynchronously:
# aws lambda invoke --function-name job --invocation-type Event --payload "$(terraform output -raw event)" /dev/null
output "event" {
  value = data.boxer_node_bootstrap.job.event
}
