// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
)

// EnsureLogGroup makes a log group, if it is not there, and has it keep what it gets
// for so many days; 0: for ever. Lambda would make one by itself, without tags and
// for ever. One that somebody else made is left alone: its tags are not ours. made: it
// was not there.
func (c *Client) EnsureLogGroup(ctx context.Context, name string, days int, tags map[string]string) (made bool, err error) {
	_, err = c.Logs.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String(name), Tags: tags})
	made = err == nil
	if is(err, "ResourceAlreadyExistsException") {
		has, found := c.logTags(ctx, name)
		if found == nil && has[TagNetwork] != "" && has[TagNetwork] != tags[TagNetwork] {
			return false, &Error{Doing: "making the log group", On: name, Err: fmt.Errorf("it belongs to network %q", has[TagNetwork]),
				Remedy: "Choose another name or name_prefix."}
		}
		err = found
	}
	if err != nil {
		return made, failed("making the log group", name, err)
	}
	if days == 0 {
		_, err = c.Logs.DeleteRetentionPolicy(ctx, &cloudwatchlogs.DeleteRetentionPolicyInput{LogGroupName: aws.String(name)})
		if missing(err) {
			err = nil
		}
	} else {
		_, err = c.Logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String(name), RetentionInDays: aws.Int32(int32(days))})
	}
	if err != nil {
		return made, failed("setting how long logs are kept in", name, err)
	}
	return made, c.tagLogGroup(ctx, name, tags)
}

func (c *Client) logTags(ctx context.Context, name string) (map[string]string, error) {
	arn, err := c.logARN(ctx, name)
	if err != nil {
		return nil, err
	}
	out, err := c.Logs.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: aws.String(arn)})
	if err != nil {
		return nil, err
	}
	return out.Tags, nil
}

func (c *Client) tagLogGroup(ctx context.Context, name string, tags map[string]string) error {
	has, err := c.logTags(ctx, name)
	if err != nil {
		return failed("reading the tags of log group", name, err)
	}
	arn, err := c.logARN(ctx, name)
	if err != nil {
		return err
	}
	set, remove := changes(has, tags)
	if len(set) > 0 {
		_, err = c.Logs.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: aws.String(arn), Tags: set})
	}
	if err == nil && len(remove) > 0 {
		_, err = c.Logs.UntagResource(ctx, &cloudwatchlogs.UntagResourceInput{ResourceArn: aws.String(arn), TagKeys: remove})
	}
	return failed("tagging log group", name, err)
}

func (c *Client) logARN(ctx context.Context, name string) (string, error) {
	account, err := c.Account(ctx)
	return arn("logs", c.Region, account, "log-group:"+name), err
}

// DeleteLogGroup removes a log group with all that is in it.
func (c *Client) DeleteLogGroup(ctx context.Context, name string) error {
	_, err := c.Logs.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: aws.String(name)})
	if missing(err) {
		return nil
	}
	return failed("removing the log group", name, err)
}

// LogTail are the last lines of a log group, as far as they are there already.
func (c *Client) LogTail(ctx context.Context, name string, lines int) []string {
	streams, err := c.Logs.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{
		LogGroupName: aws.String(name), OrderBy: "LastEventTime", Descending: aws.Bool(true), Limit: aws.Int32(1),
	})
	if err != nil || len(streams.LogStreams) == 0 {
		return nil
	}
	out, err := c.Logs.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{
		LogGroupName: aws.String(name), LogStreamName: streams.LogStreams[0].LogStreamName, Limit: aws.Int32(int32(lines)),
	})
	if err != nil {
		return nil
	}
	var tail []string
	for _, e := range out.Events {
		tail = append(tail, aws.ToString(e.Message))
	}
	return tail
}
