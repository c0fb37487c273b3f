// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/boxer-overlay/boxer/runtime/capacity"
)

const capacityKind = "Boxer Capacity"

// capacityDataSource calculates; it asks neither platform nor network.
type capacityDataSource struct{}

func newCapacityDataSource() datasource.DataSource { return capacityDataSource{} }

func (capacityDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "boxer_capacity_plan"
}

type capacityModel struct {
	Trace        types.String           `tfsdk:"trace"`
	FillGaps     types.Bool             `tfsdk:"fill_gaps"`
	VM           *capacityVMModel       `tfsdk:"vm"`
	Function     *capacityFunctionModel `tfsdk:"function"`
	Seconds      types.Int64            `tfsdk:"seconds"`
	Requests     types.Float64          `tfsdk:"requests"`
	Mean         types.Float64          `tfsdk:"mean_requests_per_second"`
	Peak         types.Float64          `tfsdk:"peak_requests_per_second"`
	Provisioning []provisioningModel    `tfsdk:"provisioning"`
	Splits       []splitModel           `tfsdk:"splits"`
}

type capacityVMModel struct {
	PricePerHour      types.Float64 `tfsdk:"price_per_hour"`
	Cores             types.Float64 `tfsdk:"cores"`
	RequestsPerSecond types.Float64 `tfsdk:"requests_per_second"`
}

type capacityFunctionModel struct {
	PricePerGBSecond  types.Float64 `tfsdk:"price_per_gb_second"`
	MemoryGB          types.Float64 `tfsdk:"memory_gb"`
	RequestsPerSecond types.Float64 `tfsdk:"requests_per_second"`
}

type provisioningModel struct {
	Percentile        float64 `tfsdk:"percentile"`
	RequestsPerSecond float64 `tfsdk:"requests_per_second"`
	RequestsShare     float64 `tfsdk:"requests_share"`
	CostPerHour       float64 `tfsdk:"cost_per_hour"`
}

type splitModel struct {
	FunctionRequirement float64             `tfsdk:"function_requirement"`
	VMRequestsPerSecond float64             `tfsdk:"vm_requests_per_second"`
	SecondsShare        float64             `tfsdk:"seconds_share"`
	RequestsShare       float64             `tfsdk:"requests_share"`
	VMCores             float64             `tfsdk:"vm_cores"`
	Functions           int64               `tfsdk:"functions"`
	CostPerHour         float64             `tfsdk:"cost_per_hour"`
	Savings             map[string]*float64 `tfsdk:"savings"`
}

func (capacityDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	vm, function := capacity.DefaultVM(), capacity.DefaultFunction()
	input := func(standard float64, description string) schema.Attribute {
		return schema.Float64Attribute{
			Optional: true, Computed: true, Validators: []validator.Float64{aboveZero{}},
			MarkdownDescription: fmt.Sprintf("%s Default: %g.", description, standard),
		}
	}
	number := func(description string) schema.Attribute {
		return schema.Float64Attribute{Computed: true, MarkdownDescription: description}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "How much of a load VMs should serve, and functions the rest, so that it costs least: what `boxer plan-capacity` " +
			"calculates from the requests of each second. Default prices, in US dollars, are AWS's lists for us-east-2 in November 2026, of " +
			"`c6g.2xlarge` on demand and of arm64 functions. Not counted are invocations, traffic, storage and addresses.",
		Attributes: map[string]schema.Attribute{
			"trace": schema.StringAttribute{
				Required: true,
				MarkdownDescription: "File with a line `second,requests` for each second, in order; it may be packed with gzip. " +
					"`boxer plan-capacity convert` makes one of logs.",
			},
			"fill_gaps": schema.BoolAttribute{
				Optional:            true,
				MarkdownDescription: "Take seconds that are missing in the trace for seconds without requests; else they are an error.",
			},
			"vm": schema.SingleNestedAttribute{
				Optional: true, Computed: true, MarkdownDescription: "The VMs that serve the baseline.",
				Attributes: map[string]schema.Attribute{
					"price_per_hour":      input(vm.PricePerHour, "Price of an hour of a VM."),
					"cores":               input(vm.Cores, "Cores of that VM."),
					"requests_per_second": input(vm.RequestsPerSecond, "Requests per second that one of its cores serves."),
				},
			},
			"function": schema.SingleNestedAttribute{
				Optional: true, Computed: true, MarkdownDescription: "The functions that serve what exceeds it.",
				Attributes: map[string]schema.Attribute{
					"price_per_gb_second": input(function.PricePerGBSecond, "Price of a second of a function with 1 GB."),
					"memory_gb":           input(function.MemoryGB, "Memory of a function."),
					"requests_per_second": input(function.RequestsPerSecond, "Requests per second that one function serves."),
				},
			},
			"seconds":                  schema.Int64Attribute{Computed: true, MarkdownDescription: "Length of the trace."},
			"requests":                 number("Requests in all."),
			"mean_requests_per_second": number("Requests per second on average."),
			"peak_requests_per_second": number("Requests of the busiest second."),
			"provisioning": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "What VMs alone cost, for the load that 100, 99, 95 and 90 % of the seconds do not exceed.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"percentile":          number("`100`, `99`, `95` or `90`."),
					"requests_per_second": number("That load."),
					"requests_share":      number("Share of the requests that these VMs serve in time, from 0 to 1."),
					"cost_per_hour":       number("What they cost in an hour."),
				}},
			},
			"splits": schema.ListNestedAttribute{
				Computed:            true,
				MarkdownDescription: "The cheapest split if functions need 1, 2, 4 and 8 times as much for a request: the first one is for `function` as it is.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"function_requirement":   number("`1`, `2`, `4` or `8`."),
					"vm_requests_per_second": number("The baseline: requests per second that VMs serve."),
					"seconds_share":          number("Share of the seconds in which the baseline is enough, from 0 to 1."),
					"requests_share":         number("Share of the requests that the baseline serves, from 0 to 1."),
					"vm_cores":               number("Cores of VMs for the baseline."),
					"functions":              schema.Int64Attribute{Computed: true, MarkdownDescription: "Functions at once, in the busiest second."},
					"cost_per_hour":          number("What VMs and functions cost in an hour, on average."),
					"savings": schema.MapAttribute{
						ElementType: types.Float64Type, Computed: true,
						MarkdownDescription: "What is saved, from 0 to 1, against VMs alone for each percentile: `p100`, `p99`, `p95`, `p90`. " +
							"Negative if they cost less, because they do not serve all; null if they cost nothing.",
					},
				}},
			},
		},
	}
}

func (capacityDataSource) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	var model capacityModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	if resp.Diagnostics.HasError() {
		return
	}
	trace, err := readTrace(model.Trace.ValueString(), model.FillGaps.ValueBool())
	if err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("trace"), fmt.Sprintf("reading %s (%s)", capacityKind, model.Trace.ValueString()), sentence(err.Error()))
		return
	}
	plan, err := capacity.New(trace, model.vm(), model.function())
	if err != nil {
		addProblem(&resp.Diagnostics, "calculating", capacityKind, model.Trace.ValueString(), err)
		return
	}
	model.describe(plan)
	resp.Diagnostics.Append(resp.State.Set(ctx, &model)...)
}

func readTrace(name string, fillGaps bool) (capacity.Trace, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file") // a pipe would be waited for
	}
	var file *os.File
	if err == nil {
		file, err = os.Open(name)
	}
	if err != nil {
		return nil, fmt.Errorf("the trace cannot be read (%w): give a file that is there and readable", err)
	}
	defer file.Close()
	return capacity.Read(file, fillGaps)
}

// or is what is configured, else standard, which the configuration then has.
func or(value *types.Float64, standard float64) float64 {
	if value.IsNull() || value.IsUnknown() {
		*value = types.Float64Value(standard)
	}
	return value.ValueFloat64()
}

func (m *capacityModel) vm() capacity.VM {
	if m.VM == nil {
		m.VM = new(capacityVMModel)
	}
	d := capacity.DefaultVM()
	return capacity.VM{
		PricePerHour: or(&m.VM.PricePerHour, d.PricePerHour), Cores: or(&m.VM.Cores, d.Cores),
		RequestsPerSecond: or(&m.VM.RequestsPerSecond, d.RequestsPerSecond),
	}
}

func (m *capacityModel) function() capacity.Function {
	if m.Function == nil {
		m.Function = new(capacityFunctionModel)
	}
	d := capacity.DefaultFunction()
	return capacity.Function{
		PricePerGBSecond: or(&m.Function.PricePerGBSecond, d.PricePerGBSecond), MemoryGB: or(&m.Function.MemoryGB, d.MemoryGB),
		RequestsPerSecond: or(&m.Function.RequestsPerSecond, d.RequestsPerSecond),
	}
}

func (m *capacityModel) describe(p *capacity.Plan) {
	m.Seconds, m.Requests = types.Int64Value(int64(p.Seconds)), types.Float64Value(p.Requests)
	m.Mean, m.Peak = types.Float64Value(p.Mean), types.Float64Value(p.Peak)
	for _, alone := range p.Provisioning {
		m.Provisioning = append(m.Provisioning, provisioningModel(alone))
	}
	for _, s := range p.Splits {
		m.Splits = append(m.Splits, splitModel{
			s.FunctionRequirement, s.VMRequestsPerSecond, s.SecondsShare, s.RequestsShare, s.VMCores, int64(s.Functions), s.CostPerHour, s.Savings,
		})
	}
}

// aboveZero wants a number that something can be divided by.
type aboveZero struct{}

func (aboveZero) Description(context.Context) string { return "a number above 0" }

func (v aboveZero) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (aboveZero) ValidateFloat64(_ context.Context, req validator.Float64Request, resp *validator.Float64Response) {
	if value := req.ConfigValue; !value.IsNull() && !value.IsUnknown() && value.ValueFloat64() <= 0 {
		resp.Diagnostics.AddAttributeError(req.Path, "Not above 0",
			fmt.Sprintf("It is %g: give a number above 0, or leave the attribute out for its default.", value.ValueFloat64()))
	}
}
