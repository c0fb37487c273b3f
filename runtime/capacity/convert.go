// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// Converted is a trace and what was found on the way.
type Converted struct {
	Trace   Trace
	Start   int64 // Unix time of the first second; 0 if there were no times
	LeftOut int   // lines without a time
	Silence int   // seconds of the longest time without a request
}

// FromCLF counts the lines of a web server's log in the common log format, or one
// that begins like it, by second. A few lines without a time are left out.
func FromCLF(r io.Reader) (*Converted, error) {
	var t tally
	lines, leftOut, sample := 0, 0, ""
	err := readLines(r, func(line []byte, _ bool) error {
		lines++
		second, ok := clfTime(line)
		if !ok {
			if leftOut++; sample == "" {
				sample = quoted(line)
			}
			return nil
		}
		return t.add(second, 1)
	}, func() error {
		if leftOut*100 > lines {
			return fmt.Errorf("%d of %d lines have no time such as [01/Jul/1995:00:00:06 -0400], the first of them %s: give a log in the common log format", leftOut, lines, sample)
		}
		return t.empty()
	})
	if err != nil {
		return nil, err
	}
	return t.converted(leftOut), nil
}

// clfTime finds [day/month/year:hour:minute:second zone].
func clfTime(line []byte) (int64, bool) {
	const layout = "02/Jan/2006:15:04:05 -0700"
	begin := bytes.IndexByte(line, '[') + 1
	if begin == 0 || len(line) < begin+len(layout) {
		return 0, false
	}
	at, err := time.Parse(layout, string(line[begin:begin+len(layout)]))
	return at.Unix(), err == nil
}

// FromCounts reads lines with a number of requests, one for each second, or with
// the second before it, in any order and of as many sources as there are.
func FromCounts(r io.Reader) (*Converted, error) {
	var t tally
	var next int64
	timed := false
	err := readLines(r, func(line []byte, first bool) error {
		if first && isHeader(line) {
			return nil
		}
		values := columns(line)
		if len(t.counts) == 0 {
			timed = len(values) == 2
		}
		second := next
		var err error
		switch {
		case timed && len(values) == 2:
			second, err = parseTime(values[0])
		case timed || len(values) != 1:
			err = fmt.Errorf("%s: want in every line a number of requests, or in every line a second and one", quoted(line))
		}
		if err != nil {
			return err
		}
		requests, err := parseCount(values[len(values)-1])
		if err != nil {
			return err
		}
		next++
		return t.add(second, requests)
	}, t.empty)
	if err != nil {
		return nil, err
	}
	return t.converted(0), nil
}

// tally adds requests up by second.
type tally struct {
	base        int64 // second of the first of counts
	first, last int64
	counts      Trace
}

func (t *tally) add(second int64, requests float64) error {
	if len(t.counts) == 0 {
		t.base, t.first, t.last = second, second, second
	}
	t.first, t.last = min(t.first, second), max(t.last, second)
	if t.last-t.first >= maxSeconds {
		return errTooLong
	}
	if before := t.base - second; before > 0 {
		// At least twice as many, or lines that go backwards would cost their square.
		before = max(before, int64(len(t.counts)))
		t.counts, t.base = append(make(Trace, before), t.counts...), t.base-before
	}
	if after := second - t.base - int64(len(t.counts)) + 1; after > 0 {
		t.counts = append(t.counts, make(Trace, after)...)
	}
	at := &t.counts[second-t.base]
	if *at += requests; *at > maxRequests {
		return fmt.Errorf("second %d has more than %g requests: check the numbers", second, maxRequests)
	}
	return nil
}

func (t *tally) empty() error {
	if len(t.counts) == 0 {
		return errors.New("there is not one line with a time or a number: give another file, or see 'boxer plan-capacity convert --help'")
	}
	return nil
}

func (t *tally) converted(leftOut int) *Converted {
	c := &Converted{Trace: t.counts[t.first-t.base : t.last-t.base+1], Start: t.first, LeftOut: leftOut}
	silent := 0
	for _, requests := range c.Trace {
		if silent++; requests > 0 {
			silent = 0
		}
		c.Silence = max(c.Silence, silent)
	}
	return c
}
