// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Bounds of tags, those of Lambda, so that what is accepted here is accepted there.
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

// settings is what Configure hands to resources: the platform, and what holds
// for all of them.
type settings struct {
	platform
	defaultTags map[string]string
	version     string // of the runtime that this provider carries
}

// settingsOf returns what goes with the platform; nothing does in a validation.
func settingsOf(p platform) settings {
	if s, ok := p.(settings); ok {
		return s
	}
	return settings{platform: p}
}

func tagAttributes() map[string]schema.Attribute {
	return map[string]schema.Attribute{
		"tags": schema.MapAttribute{
			ElementType: types.StringType, Optional: true,
			MarkdownDescription: "Words about this resource, by key. Those of the provider's `default_tags` are added, unless a key is given here too.",
			Validators:          []validator.Map{validTags{}},
		},
		"tags_all": schema.MapAttribute{
			ElementType: types.StringType, Computed: true,
			MarkdownDescription: "All tags: `tags` and the provider's `default_tags`.",
		},
	}
}

// validTags holds tags to what every platform takes.
type validTags struct{}

func (validTags) Description(context.Context) string {
	return fmt.Sprintf("at most %d tags with keys of 1 to %d and values of at most %d characters", maxTags, maxTagKey, maxTagValue)
}

func (v validTags) MarkdownDescription(ctx context.Context) string { return v.Description(ctx) }

func (v validTags) ValidateMap(ctx context.Context, req validator.MapRequest, resp *validator.MapResponse) {
	elements := req.ConfigValue.Elements()
	if len(elements) > maxTags {
		resp.Diagnostics.AddAttributeError(req.Path, "Too many tags",
			fmt.Sprintf("%d tags are more than the %d a resource may have: remove some.", len(elements), maxTags))
	}
	for key, element := range elements {
		value, ok := element.(types.String)
		if !ok || value.IsUnknown() {
			value = types.StringValue("")
		}
		if err := checkTag(key, value.ValueString()); err != nil {
			resp.Diagnostics.AddAttributeError(req.Path.AtMapKey(key), "Invalid tag", sentence(err.Error()))
		}
	}
}

func checkTag(key, value string) error {
	switch {
	case key == "":
		return fmt.Errorf("a tag has no key: write one, as in { team = %q }", value)
	case len([]rune(key)) > maxTagKey:
		return fmt.Errorf("the key has %d characters: use at most %d", len([]rune(key)), maxTagKey)
	case len([]rune(value)) > maxTagValue:
		return fmt.Errorf("the value of %q has %d characters: use at most %d", key, len([]rune(value)), maxTagValue)
	case len(key) >= 4 && (key[:4] == "aws:" || key[:4] == "AWS:"):
		return fmt.Errorf("key %q: keys that begin with aws: belong to AWS; choose another", key)
	}
	return nil
}

// allTags are the tags of a resource and those that all have; unknown while one
// of them is.
func allTags(ctx context.Context, tags types.Map, defaults map[string]string, diags *diag.Diagnostics) types.Map {
	merged := maps.Clone(defaults)
	if merged == nil {
		merged = map[string]string{}
	}
	if tags.IsUnknown() {
		return types.MapUnknown(types.StringType)
	}
	for key, element := range tags.Elements() {
		value, ok := element.(types.String)
		if ok && value.IsUnknown() {
			return types.MapUnknown(types.StringType)
		}
		if ok {
			merged[key] = value.ValueString()
		}
	}
	all, d := types.MapValueFrom(ctx, types.StringType, merged)
	diags.Append(d...)
	return all
}

// readTags takes over the tags that the platform has. What it has because of
// the defaults is no tag of the resource's own.
func readTags(ctx context.Context, own, all *types.Map, found, defaults map[string]string, diags *diag.Diagnostics) {
	expected := stringsOf(*own)
	merged := maps.Clone(defaults)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, expected)
	if !maps.Equal(merged, found) && !maps.Equal(stringsOf(*all), found) {
		rest := maps.Clone(found)
		maps.DeleteFunc(rest, func(key, value string) bool { return defaults[key] == value && expected[key] != value })
		*own = keepMap(ctx, *own, rest, diags)
	}
	var d diag.Diagnostics
	if found == nil {
		found = map[string]string{}
	}
	*all, d = types.MapValueFrom(ctx, types.StringType, found)
	diags.Append(d...)
}

// stringsOf is a map of known strings; what is null is empty.
func stringsOf(m types.Map) map[string]string {
	values := map[string]string{}
	for key, element := range m.Elements() {
		if value, ok := element.(types.String); ok {
			values[key] = value.ValueString()
		}
	}
	return values
}

// keepMap is found, in the form of known if both say the same: a map that is
// not there and an empty one do.
func keepMap(ctx context.Context, known types.Map, found map[string]string, diags *diag.Diagnostics) types.Map {
	if maps.Equal(stringsOf(known), found) {
		if known.IsNull() || known.IsUnknown() {
			return types.MapNull(types.StringType)
		}
		return known
	}
	m, d := types.MapValueFrom(ctx, types.StringType, found)
	diags.Append(d...)
	return m
}
