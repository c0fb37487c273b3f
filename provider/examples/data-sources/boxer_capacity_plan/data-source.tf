# A day of requests by second, of which a core serves 40 and a function 35.
data "boxer_capacity_plan" "logic" {
  trace    = "${path.module}/trace.csv.gz"
  vm       = { price_per_hour = 0.096, cores = 2, requests_per_second = 40 }
  function = { requests_per_second = 35 }
}

output "logic" {
  value = {
    vm_cores  = ceil(data.boxer_capacity_plan.logic.splits[0].vm_cores)
    functions = data.boxer_capacity_plan.logic.splits[0].functions
    saved     = data.boxer_capacity_plan.logic.splits[0].savings["p99"]
  }
}
