// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
)

// logLateness is how much later than others a line may show that is older than these.
const logLateness = 10 * time.Second

// LogLine is one of a log group. A stream has those of one environment, in their order.
type LogLine struct {
	Stream, Text string
	Time         time.Time
}

// LogReader reads a log group, and then what has been added.
type LogReader struct {
	c     *Client
	group string
	from  int64            // milliseconds
	read  map[string]int64 // ids of those that were read, not older than from
}

// ReadLog reads what a log group has since a moment.
func (c *Client) ReadLog(group string, since time.Time) *LogReader {
	return &LogReader{c: c, group: group, from: since.UnixMilli(), read: map[string]int64{}}
}

// Next tells each of the lines that came since the last call, as they are ordered by time.
// ErrNotFound: there is no such group.
func (r *LogReader) Next(ctx context.Context, each func(LogLine) error) error {
	newest := r.from
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(r.c.Logs, &cloudwatchlogs.FilterLogEventsInput{
		LogGroupName: aws.String(r.group), StartTime: aws.Int64(r.from),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if missing(err) {
			err = ErrNotFound
		}
		if err != nil {
			return failed("reading the log group", r.group, err)
		}
		for _, e := range page.Events {
			id, at := aws.ToString(e.EventId), aws.ToInt64(e.Timestamp)
			if _, known := r.read[id]; known {
				continue
			}
			r.read[id] = at
			newest = max(newest, at)
			if err := each(LogLine{aws.ToString(e.LogStreamName), aws.ToString(e.Message), time.UnixMilli(at)}); err != nil {
				return err
			}
		}
	}
	r.from = max(r.from, newest-logLateness.Milliseconds())
	for id, at := range r.read {
		if at < r.from {
			delete(r.read, id)
		}
	}
	return nil
}
