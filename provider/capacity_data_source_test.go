// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	"github.com/hashicorp/terraform-plugin-testing/knownvalue"
	"github.com/hashicorp/terraform-plugin-testing/plancheck"
	"github.com/hashicorp/terraform-plugin-testing/statecheck"
	"github.com/hashicorp/terraform-plugin-testing/tfjsonpath"
)

// byHand is the trace that TestByHand of runtime/capacity calculates.
const byHand = "second,requests\n0,10\n1,20\n2,10\n3,140\n4,10\n5,40\n6,10\n7,20\n8,30\n9,10\n"

// TestAccCapacityPlan: to the cent what is calculated by hand; with the defaults,
// what they are is in the state.
func TestAccCapacityPlan(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace.csv")
	if err := os.WriteFile(trace, []byte(byHand), 0o600); err != nil {
		t.Fatal(err)
	}
	config := `data "boxer_capacity_plan" "hand" {
  trace    = "` + trace + `"
  vm       = { price_per_hour = 14400, cores = 4, requests_per_second = 10 }
  function = { price_per_gb_second = 1.5, requests_per_second = 10 }
}
data "boxer_capacity_plan" "standard" { trace = "` + trace + `" }
`
	number := func(want float64) knownvalue.Check {
		return knownvalue.Float64Func(func(got float64) error {
			if math.Abs(got-want) > 1e-9 {
				return os.ErrInvalid
			}
			return nil
		})
	}
	split := tfjsonpath.New("splits").AtSliceIndex(0)
	resource.Test(t, resource.TestCase{
		ProtoV6ProviderFactories: useTerraform(t, withPlatform(newFakePlatform())),
		Steps: []resource.TestStep{
			{
				Config: config,
				ConfigStateChecks: []statecheck.StateCheck{
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("seconds"), knownvalue.Int64Exact(10)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("requests"), number(300)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("mean_requests_per_second"), number(30)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("peak_requests_per_second"), number(140)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("function").AtMapKey("memory_gb"), number(2)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("splits"), knownvalue.ListSizeExact(4)),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", split, knownvalue.ObjectExact(map[string]knownvalue.Check{
						"function_requirement": number(1), "vm_requests_per_second": number(20), "seconds_share": number(0.7), "requests_share": number(0.5),
						"vm_cores": number(2), "functions": knownvalue.Int64Exact(12), "cost_per_hour": number(23400),
						"savings": knownvalue.MapExact(map[string]knownvalue.Check{
							"p100": number(75.0 / 140), "p99": number(75.0 / 140), "p95": number(75.0 / 140), "p90": number(-25.0 / 40),
						}),
					})),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.hand", tfjsonpath.New("provisioning").AtSliceIndex(3), knownvalue.ObjectExact(map[string]knownvalue.Check{
						"percentile": number(90), "requests_per_second": number(40), "requests_share": number(2.0 / 3), "cost_per_hour": number(14400),
					})),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.standard", tfjsonpath.New("vm"), knownvalue.ObjectExact(map[string]knownvalue.Check{
						"price_per_hour": number(0.272), "cores": number(8), "requests_per_second": number(100),
					})),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.standard", tfjsonpath.New("function"), knownvalue.ObjectExact(map[string]knownvalue.Check{
						"price_per_gb_second": number(0.0000133334), "memory_gb": number(2), "requests_per_second": number(100),
					})),
					statecheck.ExpectKnownValue("data.boxer_capacity_plan.standard", tfjsonpath.New("fill_gaps"), knownvalue.Null()),
				},
			},
			{
				Config:           config,
				ConfigPlanChecks: resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectEmptyPlan()}},
			},
		},
	})
}

func TestCapacityPlanErrors(t *testing.T) {
	w := newWorkspace(t, withPlatform(newFakePlatform()))
	w.write("gap.csv", "0,1\n4,1\n")
	w.write("hand.csv", byHand)
	w.write("silent.csv", "0,0\n1,0\n")
	w.write("filled.csv", "0,1\n0,1\n")
	of := func(file, more string) string {
		return "data \"boxer_capacity_plan\" \"other\" {\n  trace = \"./" + file + "\"\n" + more + "}"
	}
	w.refuses("capacity", map[string]string{
		"missing":   of("none.csv", ""),
		"directory": of("", ""),
		"gap":       of("gap.csv", ""),
		"twice":     of("filled.csv", "  fill_gaps = true\n"),
		"silent":    of("silent.csv", ""),
		"cores":     of("hand.csv", "  vm = { cores = 0 }\n"),
		"price":     of("hand.csv", "  function = { price_per_gb_second = -1 }\n"),
		"tiny":      of("hand.csv", "  function = { memory_gb = 0.0001 }\n"),
	})
}
