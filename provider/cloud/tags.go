// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// Tags that say whose an object is. MaxTags are left for users: AWS allows 50, and an
// instance also has a Name, its launch and its layer, which a function has not.
const (
	tagPrefix  = "boxer:"
	TagNetwork = tagPrefix + "network"
	TagNode    = tagPrefix + "node" // a slot, or a function's name
	TagPart    = tagPrefix + "part"
	tagName    = "Name"

	MaxTags         = 44
	MaxFunctionTags = 47
)

// Parts of a network, the values of TagPart.
const (
	PartSeed     = "seed"
	PartVM       = "vm"
	PartFunction = "function"
	PartLayer    = "layer"
	PartRole     = "role"
	PartGroup    = "group"
	PartPublish  = "publish" // a node's group, which opens what it publishes
	PartSecret   = "secret"
	PartRecord   = "network"
	PartAddress  = "address"
	PartLogs     = "logs"
)

// Tags of an object: the user's and ours. node may be empty.
func Tags(network, node, part string, all map[string]string) map[string]string {
	tags := map[string]string{}
	maps.Copy(tags, all)
	tags[TagNetwork], tags[TagPart] = network, part
	if node != "" {
		tags[TagNode] = node
	}
	return tags
}

// UserTags are those of found that are not ours, nor AWS's.
func UserTags(found map[string]string) map[string]string {
	tags := map[string]string{}
	for key, value := range found {
		if !strings.HasPrefix(key, tagPrefix) && !strings.HasPrefix(key, "aws:") {
			tags[key] = value
		}
	}
	return tags
}

// changes says what turns the tags that an object has into those it should have.
// Tags that AWS sets stay.
func changes(has, want map[string]string) (set map[string]string, remove []string) {
	set = map[string]string{}
	for key, value := range want {
		if old, ok := has[key]; !ok || old != value {
			set[key] = value
		}
	}
	for key := range has {
		if _, ok := want[key]; !ok && !strings.HasPrefix(key, "aws:") {
			remove = append(remove, key)
		}
	}
	slices.Sort(remove)
	return set, remove
}

func ec2Tags(tags map[string]string) []ec2types.Tag {
	var list []ec2types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, ec2types.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}

func iamTags(tags map[string]string) []iamtypes.Tag {
	var list []iamtypes.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, iamtypes.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}

func ssmTags(tags map[string]string) []ssmtypes.Tag {
	var list []ssmtypes.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, ssmtypes.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}

func ofEC2(list []ec2types.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

func ofIAM(list []iamtypes.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

func ofSSM(list []ssmtypes.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

// tagged asks EC2 with it for the objects of a network; part and node may be empty.
func tagged(network, part, node string) []ec2types.Filter {
	filters := []ec2types.Filter{tagFilter(TagNetwork, network)}
	if part != "" {
		filters = append(filters, tagFilter(TagPart, part))
	}
	if node != "" {
		filters = append(filters, tagFilter(TagNode, node))
	}
	return filters
}

func tagFilter(key, value string) ec2types.Filter {
	return ec2types.Filter{Name: aws.String("tag:" + key), Values: []string{value}}
}
