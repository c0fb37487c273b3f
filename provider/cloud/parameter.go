// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// maxRecord is what a parameter of the standard tier holds.
const maxRecord = 4096

// Network finds the record of a network. ErrNotFound: there is no such network;
// ErrForeign: the parameter is not ours.
func (c *Client) Network(ctx context.Context, name string) (*Network, error) {
	parameter := RecordName(name)
	out, err := c.SSM.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(parameter)})
	if missing(err) {
		return nil, fmt.Errorf("network %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, failed("reading the record of network", name, err)
	}
	tags, err := c.parameterTags(ctx, parameter)
	if err != nil {
		return nil, err
	}
	if tags[TagNetwork] != name {
		return nil, foreign("SSM parameter", parameter, "delete it with \"aws ssm delete-parameter --name "+parameter+"\"", "another name for the network")
	}
	var n Network
	if err := json.Unmarshal([]byte(aws.ToString(out.Parameter.Value)), &n); err != nil {
		return nil, &Error{Doing: "reading the record of network", On: name, Err: err,
			Remedy: "Somebody changed SSM parameter " + parameter + ": its history in the console has the right one."}
	}
	n.Name, n.Tags = name, UserTags(tags)
	return &n, nil
}

// foreign: what exists cannot be taken for one of ours.
func foreign(kind, name, remove, other string) error {
	return &Error{Doing: "looking for " + kind, On: name, Err: fmt.Errorf("it %w: it has no tag %s of this network", ErrForeign, TagNetwork),
		Remedy: "Choose " + other + ", or " + remove + " if nobody needs it. It was left as it is."}
}

func (c *Client) parameterTags(ctx context.Context, name string) (map[string]string, error) {
	out, err := c.SSM.ListTagsForResource(ctx, &ssm.ListTagsForResourceInput{
		ResourceType: types.ResourceTypeForTaggingParameter, ResourceId: aws.String(name),
	})
	if is(err, "InvalidResourceId") || missing(err) { // gone meanwhile
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, failed("reading the tags of SSM parameter", name, err)
	}
	return ofSSM(out.TagList), nil
}

// ErrExists is that there is a network of that name.
var ErrExists = errors.New("exists")

// record writes what the network is. new: it must not be there yet.
func (c *Client) record(ctx context.Context, n *Network, new bool) error {
	text, err := json.Marshal(n)
	if err == nil && len(text) > maxRecord {
		err = fmt.Errorf("it has %d bytes, and a parameter holds %d", len(text), maxRecord)
	}
	if err != nil {
		return failed("writing the record of network", n.Name, err)
	}
	in := &ssm.PutParameterInput{
		Name: aws.String(RecordName(n.Name)), Type: types.ParameterTypeString, Value: aws.String(string(text)),
		Description: aws.String("Record of the Boxer network " + n.Name), Overwrite: aws.Bool(!new),
	}
	if new {
		in.Tags = ssmTags(Tags(n.Name, "", PartRecord, n.Tags))
	}
	err = c.put(ctx, in)
	if is(err, "ParameterAlreadyExists") {
		return fmt.Errorf("network %q %w", n.Name, ErrExists)
	}
	return failed("writing the record of network", n.Name, err)
}

// put writes a parameter. Systems Manager may take one that was just deleted for there
// for half a minute.
func (c *Client) put(ctx context.Context, in *ssm.PutParameterInput) error {
	ghost := func(err error) bool {
		if !is(err, "ParameterAlreadyExists") {
			return false
		}
		there, err := c.hasParameter(ctx, aws.ToString(in.Name))
		return err == nil && !there
	}
	return c.retry(ctx, time.Minute, ghost, func(ctx context.Context) error {
		_, err := c.SSM.PutParameter(ctx, in)
		return err
	})
}

// Secret reads the secret of a network. ErrNotFound: there is none.
func (c *Client) Secret(ctx context.Context, network string) ([]byte, error) {
	out, err := c.SSM.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(SecretName(network)), WithDecryption: aws.Bool(true)})
	if missing(err) {
		return nil, &Error{Doing: "reading the secret", On: SecretName(network), Err: ErrNotFound,
			Remedy: "Run terraform plan: it proposes what is missing. Nodes that run keep the old secret until they are replaced."}
	}
	if err != nil {
		return nil, failed("reading the secret", SecretName(network), err)
	}
	return []byte(aws.ToString(out.Parameter.Value)), nil
}

// checkSecret wants the secret to be there. What it is nobody looks at.
func (c *Client) checkSecret(ctx context.Context, d *Design) ([]step, error) {
	name, tags := SecretName(d.Name), Tags(d.Name, "", PartSecret, d.Tags)
	found, err := c.hasParameter(ctx, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return []step{{"its secret " + name + " is gone", func(ctx context.Context) error {
			if d.Secret == "" && d.SecretVersion != 0 {
				return &Error{Doing: "putting the secret back to", On: name, Err: errors.New("only its owner knows it: it was given with secret_wo"),
					Remedy: "Count secret_wo_version up: that replaces the network."}
			}
			return c.putSecret(ctx, name, cmp.Or(d.Secret, rand.Text()+rand.Text()), tags)
		}}}, nil
	}
	has, err := c.parameterTags(ctx, name)
	if err != nil {
		return nil, err
	}
	if has[TagNetwork] != d.Name {
		return nil, foreign("SSM parameter", name, "delete it with \"aws ssm delete-parameter --name "+name+"\"", "another name for the network")
	}
	steps := c.retagParameter(name, has, tags)
	if d.fresh && d.Secret != "" { // of a network whose record somebody deleted
		steps = append(steps, step{"its secret is another", func(ctx context.Context) error { return c.putSecret(ctx, name, d.Secret, nil) }})
	}
	return steps, nil
}

// putSecret keeps a secret; without tags: in the place of another one.
func (c *Client) putSecret(ctx context.Context, name, value string, tags map[string]string) error {
	in := &ssm.PutParameterInput{
		Name: aws.String(name), Type: types.ParameterTypeSecureString, Value: aws.String(value),
		Description: aws.String("Secret of a Boxer network"), Tags: ssmTags(tags), Overwrite: aws.Bool(tags == nil),
	}
	return failed("keeping the secret as", name, c.put(ctx, in))
}

// checkRecord wants the record to have the tags of the network; what it says is
// right by definition.
func (c *Client) checkRecord(ctx context.Context, d *Design) ([]step, error) {
	name := RecordName(d.Name)
	has, err := c.parameterTags(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.retagParameter(name, has, Tags(d.Name, "", PartRecord, d.Tags)), nil
}

func (c *Client) retagParameter(name string, has, want map[string]string) []step {
	add, remove := changes(has, want)
	if len(add)+len(remove) == 0 {
		return nil
	}
	return []step{{"the tags of SSM parameter " + name + " are others", func(ctx context.Context) error {
		id := aws.String(name)
		var err error
		if len(add) > 0 {
			_, err = c.SSM.AddTagsToResource(ctx, &ssm.AddTagsToResourceInput{
				ResourceType: types.ResourceTypeForTaggingParameter, ResourceId: id, Tags: ssmTags(add)})
		}
		if err == nil && len(remove) > 0 {
			_, err = c.SSM.RemoveTagsFromResource(ctx, &ssm.RemoveTagsFromResourceInput{
				ResourceType: types.ResourceTypeForTaggingParameter, ResourceId: id, TagKeys: remove})
		}
		return failed("tagging SSM parameter", name, err)
	}}}
}

// hasParameter says whether there is such a parameter. It stays encrypted. (Listings lag
// behind what was made or deleted, and may have pages with nothing on them.)
func (c *Client) hasParameter(ctx context.Context, name string) (bool, error) {
	_, err := c.SSM.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String(name), WithDecryption: aws.Bool(false)})
	if missing(err) {
		return false, nil
	}
	return err == nil, failed("looking for SSM parameter", name, err)
}

func (c *Client) deleteParameter(ctx context.Context, name string) error {
	_, err := c.SSM.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String(name)})
	if missing(err) {
		return nil
	}
	return failed("deleting SSM parameter", name, err)
}
