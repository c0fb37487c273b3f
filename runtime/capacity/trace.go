// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// Trace is the requests of each second, one after the other.
type Trace []float64

// maxSeconds of a trace: 100 days, for which some 400 MB of memory are needed.
var maxSeconds int64 = 100 * 24 * 3600 // fuzzing has fewer

const (
	header      = "second,requests"
	maxRequests = 1e12    // in a second
	maxTime     = 1 << 40 // of a second, so that differences are numbers, too
	maxLine     = 1 << 20
)

var errTooLong = fmt.Errorf("it has more than %d seconds (100 days): cut it", maxSeconds)

// Read reads a trace: lines "second,requests" in the order of time, after a header
// or none. A second that is missing is an error, or with fillGaps one without requests.
func Read(r io.Reader, fillGaps bool) (Trace, error) {
	var trace Trace
	var last int64
	err := readLines(r, func(line []byte, first bool) error {
		second, requests, err := traceLine(line)
		switch {
		case err != nil && first && isHeader(line):
			return nil
		case err != nil:
			return err
		}
		missing := second - last - 1
		switch {
		case len(trace) == 0 || missing == 0:
		case missing == -1:
			return fmt.Errorf("second %d comes twice: add its requests up in one line", second)
		case missing < 0:
			return fmt.Errorf("second %d comes after second %d: sort the lines by time", second, last)
		case !fillGaps:
			return fmt.Errorf("%d seconds are missing before second %d: add them, with 0 if nobody asked for anything; or fill all gaps so (--fill-gaps; in Terraform fill_gaps)", missing, second)
		case missing >= maxSeconds-int64(len(trace)):
			return errTooLong
		default:
			trace = append(trace, make(Trace, missing)...)
		}
		if int64(len(trace)) >= maxSeconds {
			return errTooLong
		}
		trace, last = append(trace, requests), second
		return nil
	}, func() error {
		if len(trace) == 0 {
			return errors.New("it has no seconds: give lines such as 0,17 (the second, and its requests)")
		}
		return nil
	})
	return trace, err
}

func traceLine(line []byte) (second int64, requests float64, err error) {
	values := columns(line)
	if len(values) != 2 {
		return 0, 0, fmt.Errorf("%s: want %s; 'boxer plan-capacity convert' makes such lines", quoted(line), header)
	}
	if second, err = parseTime(values[0]); err == nil {
		requests, err = parseCount(values[1])
	}
	return second, requests, err
}

// Write writes a trace as Read reads it.
func (t Trace) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	line := append([]byte(header), '\n')
	for second, requests := range t {
		_, _ = out.Write(line) // an error stays until Flush
		line = append(strconv.AppendInt(line[:0], int64(second), 10), ',')
		line = append(strconv.AppendFloat(line, requests, 'f', -1, 64), '\n')
	}
	_, _ = out.Write(line)
	return out.Flush()
}

// readLines gives do what is in each line that is neither empty nor a comment, and
// ends with end. What it reads may be packed with gzip.
func readLines(r io.Reader, do func(line []byte, first bool) error, end func() error) error {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return damaged(err)
		}
		in = bufio.NewReader(unpacked)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	number, first := 0, true
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), []byte("\ufeff")))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := do(line, first); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		first = false
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("line %d has more than %d bytes: give a text file, or one packed with gzip", number+1, maxLine)
	case err != nil:
		return damaged(err)
	}
	return end()
}

// damaged is an error of reading itself: the file's, or gzip's.
func damaged(err error) error {
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return errors.New("the packed file is damaged or cut short: copy it again")
	}
	return fmt.Errorf("it cannot be read (%w): give a file with lines of text", err)
}

// isHeader: no column of a line is a number.
func isHeader(line []byte) bool {
	for _, column := range columns(line) {
		if _, err := strconv.ParseFloat(string(column), 64); err == nil {
			return false
		}
	}
	return true
}

func columns(line []byte) [][]byte {
	return bytes.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\t' })
}

func parseTime(text []byte) (int64, error) {
	second, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || second < -maxTime || second > maxTime {
		return 0, fmt.Errorf("second %s: want a whole number", quoted(text))
	}
	return second, nil
}

func parseCount(text []byte) (float64, error) {
	count, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsNaN(count) || count < 0 || count > maxRequests {
		return 0, fmt.Errorf("requests %s: want a number from 0 to %g", quoted(text), maxRequests)
	}
	if count < 1e-6 {
		count = 0 // also what is too small to be calculated with
	}
	return count, nil
}

// quoted is the beginning of what a line has.
func quoted(text []byte) string {
	if len(text) > 40 {
		return strconv.Quote(string(text[:40])) + "..."
	}
	return strconv.Quote(string(text))
}
