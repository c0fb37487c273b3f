// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"math"
	"reflect"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-framework/types/basetypes"

	"github.com/boxer-overlay/boxer/runtime/controller"
)

// policy says how many replicas of a function node there are, and who decides it.
type policy struct {
	Count      int // -1: the controller moves it
	Min, Max   int // within these; Max 0: it does not
	Budget     float64
	Scale      *controller.Scale
	StandbyFor string
}

func (p policy) equal(other policy) bool { return reflect.DeepEqual(p, other) }

// owned: the controller moves the number.
func (p policy) owned() bool { return p.Count < 0 }

// clamp is the number nearest to count that p allows.
func (p policy) clamp(count int) int {
	switch {
	case !p.owned():
		return p.Count
	case p.StandbyFor != "":
		return min(max(count, 0), 1)
	}
	return min(max(count, p.Min), p.Max)
}

func (p policy) declaration() controller.Declaration {
	return controller.Declaration{Count: p.Count, Min: p.Min, Max: p.Max, Budget: p.Budget, Scale: p.Scale, StandbyFor: p.StandbyFor}
}

func policyOf(d *controller.Declaration) *policy {
	if d == nil {
		return nil
	}
	return &policy{Count: d.Count, Min: d.Min, Max: d.Max, Budget: d.Budget, Scale: d.Scale, StandbyFor: d.StandbyFor}
}

// rangeModel are the attributes that make a policy.
type rangeModel struct {
	DesiredCount types.Int64  `tfsdk:"desired_count"`
	MinCount     types.Int64  `tfsdk:"min_count"`
	MaxCount     types.Int64  `tfsdk:"max_count"`
	Budget       types.Object `tfsdk:"budget"`
	Scale        types.Object `tfsdk:"scale"`
	StandbyFor   types.String `tfsdk:"standby_for"`
}

var (
	budgetTypes = map[string]attr.Type{"gb_seconds_per_day": types.Float64Type}
	scaleTypes  = map[string]attr.Type{"metric": types.StringType, "target": types.Float64Type, "cooldown": types.Int64Type}
)

func rangeAttributes() map[string]schema.Attribute {
	count := int64validator.Between(0, controller.MaxCount)
	return map[string]schema.Attribute{
		"desired_count": schema.Int64Attribute{
			Optional: true,
			MarkdownDescription: "How many replicas run, 0 to 1000. The controller in the network's seed keeps that number: a replica that ends " +
				"is followed by another in its slot, at its address (`boxer events`). Left out, the number is the controller's: it begins with " +
				"`min_count` and moves within `min_count` and `max_count`, as `scale`, `boxer scale` or the HTTP hook (`boxer hook`) have it, and no plan proposes to change it back.",
			Validators: []validator.Int64{count},
		},
		"min_count": schema.Int64Attribute{
			Optional: true, Computed: true,
			MarkdownDescription: "The fewest replicas, 0 to 1000. Default 1. With 0 there may be none: the first connect to the name starts one " +
				"and waits for it, and it goes again after a minute, or `scale`'s `cooldown`, without connections. Not together with `desired_count`.",
			Validators: []validator.Int64{count},
		},
		"max_count": schema.Int64Attribute{
			Optional: true, Computed: true,
			MarkdownDescription: "The most replicas, 1 to 1000, `min_count` or more. Default 1000. Not together with `desired_count`.",
			Validators:          []validator.Int64{int64validator.Between(1, controller.MaxCount)},
		},
		"budget": schema.SingleNestedAttribute{
			Optional:            true,
			MarkdownDescription: "What the replicas may use. When it is spent nothing more is launched; what runs goes on.",
			Attributes: map[string]schema.Attribute{
				"gb_seconds_per_day": schema.Float64Attribute{
					Required: true,
					MarkdownDescription: "GB-seconds for a day (UTC), more than 0: `memory_size` in GB times the seconds of each replica, as Lambda " +
						"counts them.",
					Validators: []validator.Float64{positive{}},
				},
			},
		},
		"scale": schema.SingleNestedAttribute{
			Optional: true,
			MarkdownDescription: "Moves the number of replicas within the range, so that each has `target` of a metric: up at once, down after " +
				"`cooldown`. A replica that is one too many is asked to leave, and ends its open connections first. Not together with `desired_count`.",
			Attributes: map[string]schema.Attribute{
				"metric": schema.StringAttribute{
					Required: true,
					MarkdownDescription: "`cpu`: CPUs that the guest and its children use; `connections`: open ones into the guest's listeners; " +
						"`accept_queue`: those of them that the guest has not accepted yet.",
					Validators: []validator.String{stringvalidator.OneOf(controller.MetricCPU, controller.MetricConnections, controller.MetricAcceptQueue)},
				},
				"target": schema.Float64Attribute{
					Required:            true,
					MarkdownDescription: "How much of the metric one replica shall have, more than 0: `0.5` of a CPU, `20` connections.",
					Validators:          []validator.Float64{positive{}},
				},
				"cooldown": schema.Int64Attribute{
					Optional:            true,
					MarkdownDescription: "For how many seconds fewer replicas must do before there are fewer, 1 to 86400. Default 60.",
					Validators:          []validator.Int64{int64validator.Between(1, 24*60*60)},
				},
			},
		},
		"standby_for": schema.StringAttribute{
			Optional: true,
			MarkdownDescription: "Name of a VM node whose place the only replica takes while that node is gone. Not together with `desired_count`, " +
				"`min_count`, `max_count` or `scale`.",
			Validators: []validator.String{validName()},
		},
	}
}

// positive is a number above 0.
type positive struct{}

func (positive) Description(context.Context) string { return "more than 0" }

func (v positive) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (positive) ValidateFloat64(_ context.Context, req validator.Float64Request, resp *validator.Float64Response) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if value := req.ConfigValue.ValueFloat64(); !(value > 0) || math.IsInf(value, 0) {
		resp.Diagnostics.AddAttributeError(req.Path, "Invalid Attribute Value", fmt.Sprintf("Attribute %s value must be more than 0, got: %g. Write a number such as 0.5 or 20.", req.Path, value))
	}
}

// stated: the configuration says something. What is not known yet, as variables of a
// module are while they are validated, may turn out to be null.
func stated(v attr.Value) bool { return !v.IsNull() && !v.IsUnknown() }

// checkRange refuses what says two things about the number of replicas.
func (m *rangeModel) checkRange(diags *diag.Diagnostics) {
	refuse := func(attribute, summary, why string) { diags.AddAttributeError(path.Root(attribute), summary, why) }
	switch {
	case stated(m.DesiredCount) && (stated(m.MinCount) || stated(m.MaxCount)):
		refuse("desired_count", "A number and a range",
			"desired_count fixes how many replicas there are; min_count and max_count let the controller move that number. Keep desired_count, or the range.")
	case stated(m.DesiredCount) && stated(m.Scale):
		refuse("scale", "A fixed number cannot be scaled",
			"desired_count fixes how many replicas there are, and scale would move that number: write min_count and max_count instead of desired_count.")
	case stated(m.StandbyFor) && (stated(m.DesiredCount) || stated(m.MinCount) || stated(m.MaxCount) || stated(m.Scale)):
		refuse("standby_for", "A standby has no number of replicas",
			"A node with standby_for has one replica while the VM node is gone, and otherwise none: leave out desired_count, min_count, max_count and scale.")
	case m.MinCount.ValueInt64() > m.MaxCount.ValueInt64() && known(m.MinCount, m.MaxCount) && !m.MaxCount.IsNull():
		refuse("max_count", "No number is within the range",
			fmt.Sprintf("max_count is %d, and min_count is %d: raise max_count or lower min_count.", m.MaxCount.ValueInt64(), m.MinCount.ValueInt64()))
	}
}

// planRange plans what the configuration leaves out of the range.
func (m *rangeModel) planRange(configured rangeModel) {
	switch {
	case configured.DesiredCount.IsUnknown() || configured.StandbyFor.IsUnknown():
		if configured.MinCount.IsNull() {
			m.MinCount = types.Int64Unknown()
		}
		if configured.MaxCount.IsNull() {
			m.MaxCount = types.Int64Unknown()
		}
	case !configured.DesiredCount.IsNull() || !configured.StandbyFor.IsNull():
		m.MinCount, m.MaxCount = types.Int64Null(), types.Int64Null()
	default:
		if configured.MinCount.IsNull() {
			m.MinCount = types.Int64Value(1)
		}
		if configured.MaxCount.IsNull() {
			m.MaxCount = types.Int64Value(controller.MaxCount)
		}
	}
}

// decided gives what was not known while planning its value.
func (m *rangeModel) decided() {
	configured := *m
	if m.MinCount.IsUnknown() {
		configured.MinCount = types.Int64Null()
	}
	if m.MaxCount.IsUnknown() {
		configured.MaxCount = types.Int64Null()
	}
	m.planRange(configured)
}

// open: the number of replicas, or who decides it, is not known yet.
func (m *rangeModel) open() bool {
	return !known(m.DesiredCount, m.MinCount, m.MaxCount, m.StandbyFor)
}

// sameRange: both mean the same number of replicas.
func (m *rangeModel) sameRange(other *rangeModel) bool {
	return m.DesiredCount.Equal(other.DesiredCount) && m.MinCount.Equal(other.MinCount) && m.MaxCount.Equal(other.MaxCount) &&
		m.StandbyFor.Equal(other.StandbyFor)
}

// owned: the controller moves the number.
func (m *rangeModel) owned() bool { return m.DesiredCount.IsNull() }

func (m *rangeModel) policy(ctx context.Context, diags *diag.Diagnostics) policy {
	p := policy{
		Count: int(m.DesiredCount.ValueInt64()), Min: int(m.MinCount.ValueInt64()), Max: int(m.MaxCount.ValueInt64()),
		StandbyFor: m.StandbyFor.ValueString(),
	}
	if m.owned() {
		p.Count = -1
	}
	if !m.Budget.IsNull() {
		var budget struct {
			GBSecondsPerDay float64 `tfsdk:"gb_seconds_per_day"`
		}
		diags.Append(m.Budget.As(ctx, &budget, basetypes.ObjectAsOptions{})...)
		p.Budget = budget.GBSecondsPerDay
	}
	if !m.Scale.IsNull() {
		var scale struct {
			Metric   string  `tfsdk:"metric"`
			Target   float64 `tfsdk:"target"`
			Cooldown *int    `tfsdk:"cooldown"`
		}
		diags.Append(m.Scale.As(ctx, &scale, basetypes.ObjectAsOptions{})...)
		p.Scale = &controller.Scale{Metric: scale.Metric, Target: scale.Target}
		if scale.Cooldown != nil {
			p.Scale.CooldownS = *scale.Cooldown
		}
	}
	return p
}

// readRange takes over what the controller was told. Of what it was not told
// nothing is known, so that the plan proposes to tell it.
func (m *rangeModel) readRange(kept *policy) {
	m.DesiredCount, m.MinCount, m.MaxCount = types.Int64Null(), types.Int64Null(), types.Int64Null()
	if kept == nil {
		m.StandbyFor = types.StringNull()
		return
	}
	if !kept.owned() {
		m.DesiredCount = types.Int64Value(int64(kept.Count))
	}
	if kept.Max > 0 {
		m.MinCount, m.MaxCount = types.Int64Value(int64(kept.Min)), types.Int64Value(int64(kept.Max))
	}
	m.StandbyFor, m.Budget, m.Scale = orNull(kept.StandbyFor), types.ObjectNull(budgetTypes), types.ObjectNull(scaleTypes)
	if kept.Budget > 0 {
		m.Budget = types.ObjectValueMust(budgetTypes, map[string]attr.Value{"gb_seconds_per_day": types.Float64Value(kept.Budget)})
	}
	if s := kept.Scale; s != nil {
		cooldown := types.Int64Null()
		if s.CooldownS > 0 {
			cooldown = types.Int64Value(int64(s.CooldownS))
		}
		m.Scale = types.ObjectValueMust(scaleTypes, map[string]attr.Value{
			"metric": types.StringValue(s.Metric), "target": types.Float64Value(s.Target), "cooldown": cooldown,
		})
	}
}
