// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// TestReadLog: the lines of all streams, each once, also those that come late.
func TestReadLog(t *testing.T) {
	c, _ := emulated(t)
	const group = "/aws/lambda/boxer-shop_logic"
	now := time.Now().Truncate(time.Millisecond)
	next := func(r *LogReader) (texts []string) {
		t.Helper()
		if err := r.Next(t.Context(), func(l LogLine) error { texts = append(texts, l.Stream+" "+l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		return texts
	}
	if err := c.ReadLog(group, now).Next(t.Context(), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no log group: %v", err)
	}
	if _, err := c.EnsureLogGroup(t.Context(), group, 1, Tags("shop", "logic", PartFunction, nil)); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"a", "b"} {
		if _, err := c.Logs.CreateLogStream(context.Background(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: aws.String(group), LogStreamName: aws.String(stream)}); err != nil {
			t.Fatal(err)
		}
	}
	write := func(stream string, ago time.Duration, text string) {
		t.Helper()
		if _, err := c.Logs.PutLogEvents(context.Background(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: aws.String(group), LogStreamName: aws.String(stream),
			LogEvents: []types.InputLogEvent{{Message: aws.String(text), Timestamp: aws.Int64(now.Add(-ago).UnixMilli())}}}); err != nil {
			t.Fatal(err)
		}
	}
	write("a", time.Hour, "old")
	write("a", 30*time.Second, "first")
	write("b", 20*time.Second, "second")
	r := c.ReadLog(group, now.Add(-time.Minute))
	if got := next(r); !slices.Equal(got, []string{"a first", "b second"}) {
		t.Errorf("%q", got)
	}
	if got := next(r); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
	write("a", 25*time.Second, "late")
	write("b", 0, "third")
	if got := next(r); !slices.Equal(got, []string{"a late", "b third"}) {
		t.Errorf("then: %q", got)
	}
}
