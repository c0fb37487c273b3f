// SPDX-License-Identifier: Apache-2.0

package capacity

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func packed(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

func TestRead(t *testing.T) {
	for text, want := range map[string]Trace{
		"second,requests\n0,1\n1,2\n":                              {1, 2},
		"\ufeff# by hand\r\nsecond, requests\r\n7, 1.5\r\n\r\n8,0": {1.5, 0},
		"-1,3\n0,4\n1,-0\n":                                        {3, 4, 0},
		packed("800000000,1e3\n"):                                  {1000},
	} {
		if got, err := Read(strings.NewReader(text), false); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	got, err := Read(strings.NewReader("5,1\n9,2\n"), true)
	if want := (Trace{1, 0, 0, 0, 2}); err != nil || !slices.Equal(got, want) {
		t.Errorf("filled: %v, %v; want %v", got, err, want)
	}
}

func TestReadRefuses(t *testing.T) {
	long := packed("1,1\n2,2\n")
	for text, want := range map[string]string{
		"":                             "it has no seconds: give lines",
		"second,requests\n":            "it has no seconds: give lines",
		"0,NaN\n":                      `line 1: requests "NaN": want a number from 0`,
		"0,1\n1,-3\n":                  `line 2: requests "-3": want`,
		"0,1\n1,+Inf\n":                `line 2: requests "+Inf": want`,
		"0,1e13\n":                     `requests "1e13": want a number from 0 to 1e+12`,
		"0,1\n\n# x\n3,1\n":            "line 4: 2 seconds are missing before second 3: add them",
		"0,1\n1,1\n1,5\n":              "line 3: second 1 comes twice: add",
		"5,1\n6,1\n2,5\n":              "line 3: second 2 comes after second 6: sort",
		"0,1\nsecond,requests\n":       `line 2: second "second": want a whole number`,
		"0.5,1\n":                      `second "0.5": want a whole number`,
		"9999999999999,1\n":            `second "9999999999999": want`,
		"17\n":                         `"17": want second,requests; 'boxer plan-capacity convert'`,
		"1,2,3\n":                      `"1,2,3": want second,requests`,
		"\x1f\x8bno":                   "damaged or cut short",
		long[:len(long)-9]:             "damaged or cut short",
		long[:len(long)-2] + "xx":      "damaged or cut short",
		strings.Repeat("7", maxLine+9): "line 1 has more than 1048576 bytes: give a text file",
		strings.Repeat("x", 99) + ",1": `second "` + strings.Repeat("x", 40) + `"...: want`,
	} {
		if _, err := Read(strings.NewReader(text), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	for _, long := range []string{"0,1\n8640000,1\n", "0,1\n8639999,1\n8640000,1\n", "-1099511627776,1\n1099511627776,1\n"} {
		if _, err := Read(strings.NewReader(long), true); !errors.Is(err, errTooLong) {
			t.Errorf("%q: %v", long, err)
		}
	}
	if _, err := Read(failing{}, false); err == nil || !strings.Contains(err.Error(), "it cannot be read (torn): give") {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("torn") }

const clf = `199.72.81.55 - - [01/Jul/1995:00:00:03 -0400] "GET /history/apollo/ HTTP/1.0" 200 6245
unicomp6.unicomp.net - - [01/Jul/1995:00:00:06 -0400] "GET /shuttle/countdown/ HTTP/1.0" 200 3985
10.0.0.1 - ann [01/Jul/1995:04:00:03 +0000] "GET / HTTP/1.1" 200 6245 "-" "Mozilla/5.0 [en]"
burger.letters.com - - [01/Jul/1995:00:00:02 -0400] "GET /images/a.gif HTTP/1.0" 304 0
`

func TestFromCLF(t *testing.T) {
	for name, text := range map[string]string{"plain": clf, "packed": packed(clf)} {
		got, err := FromCLF(strings.NewReader(text))
		want := &Converted{Trace: Trace{1, 2, 0, 0, 1}, Start: 804571202, Silence: 2}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	// One line in a hundred may be damaged.
	got, err := FromCLF(strings.NewReader(strings.Repeat(clf, 25) + "alyssa.p"))
	if err != nil || got.LeftOut != 1 || got.Trace[1] != 50 {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                                 "there is not one line",
		clf + "0,1\n":                      `1 of 5 lines have no time such as [01/Jul/1995:00:00:06 -0400], the first of them "0,1": give`,
		"[99/Jul/1995:00:00:06 -0400] x\n": "1 of 1 lines have no time",
		"[01/Jul/1995:00:00:06 -0400]\n[01/Jul/1996:00:00:06 -0400]\n": "line 2: it has more than 8640000 seconds (100 days): cut it",
	} {
		if _, err := FromCLF(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestFromCounts(t *testing.T) {
	for text, want := range map[string]*Converted{
		"requests\n3\n0\n0\n4\n":                {Trace: Trace{3, 0, 0, 4}, Silence: 2},
		"second\trequests\n12\t3\n9\t1\n12 1\n": {Trace: Trace{1, 0, 0, 4}, Start: 9, Silence: 2},
		"5,1\n4,1\n3,1\n-2,1\n7,0\n":            {Trace: Trace{1, 0, 0, 0, 0, 1, 1, 1, 0, 0}, Start: -2, Silence: 4},
		packed("2\n"):                           {Trace: Trace{2}},
	} {
		if got, err := FromCounts(strings.NewReader(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"# nothing\n":       "there is not one line",
		"1\n2,3\n":          `line 2: "2,3": want in every line a number of requests, or`,
		"1,2\n3\n":          `line 2: "3": want in every line`,
		"1,2,3\n":           `line 1: "1,2,3": want in every line`,
		"-1\n":              `line 1: requests "-1": want`,
		"x\ny\n":            `line 2: requests "y": want`,
		"1,2\n1e3,4\n":      `line 2: second "1e3": want a whole number`,
		"1,1e12\n1,1\n":     "line 2: second 1 has more than 1e+12 requests: check",
		"0,1\n8640000,1\n":  "line 2: it has more than",
		"0,1\n-8640000,1\n": "line 2: it has more than",
	} {
		if _, err := FromCounts(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// What is converted is read as it was.
func TestWrite(t *testing.T) {
	want, err := Read(strings.NewReader("1,1\n2,-0\n3,0.25\n4,1000000000000\n5,1e-7"), false)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := want.Write(&text); err != nil {
		t.Fatal(err)
	}
	if text.String() != "second,requests\n0,1\n1,0\n2,0.25\n3,1000000000000\n4,0\n" {
		t.Errorf("%q", text.String())
	}
	if got, err := Read(strings.NewReader(text.String()), false); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// readers are what reads foreign bytes.
var readers = []func(io.Reader) (Trace, error){
	func(r io.Reader) (Trace, error) { return Read(r, false) },
	func(r io.Reader) (Trace, error) { return Read(r, true) },
	func(r io.Reader) (Trace, error) { return traceOf(FromCLF(r)) },
	func(r io.Reader) (Trace, error) { return traceOf(FromCounts(r)) },
}

func traceOf(c *Converted, err error) (Trace, error) {
	if err != nil {
		return nil, err
	}
	return c.Trace, nil
}

// FuzzTrace: whatever is read is refused with words, or is a trace that survives
// being written, and can be planned for and drawn.
func FuzzTrace(f *testing.F) {
	defer func(limit int64) { maxSeconds = limit }(maxSeconds)
	maxSeconds = 10000
	for _, text := range []string{
		"second,requests\n0,1\n1,2\n", "0,1\n5,2.5e3\n", "1\n2\n3\n", "9 3\n8 1\n", clf, packed("0,1\n1,4\n"), packed(clf)[:40],
		"0,NaN\n", "-9223372036854775808,1\n9223372036854775807,1\n", "\ufeff\n", "[01/Jul/1995:00:00:06 -0400]",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for i, read := range readers {
			trace, err := read(bytes.NewReader(data))
			if err != nil {
				if text := err.Error(); strings.Contains(text, "strconv") || strings.Contains(text, "EOF") {
					t.Errorf("reader %d: %v", i, err)
				}
				continue
			}
			if len(trace) == 0 || int64(len(trace)) > maxSeconds {
				t.Fatalf("reader %d: %d seconds", i, len(trace))
			}
			var text bytes.Buffer
			if err := trace.Write(&text); err != nil {
				t.Fatal(err)
			}
			if again, err := Read(&text, false); err != nil || !slices.Equal(again, trace) {
				t.Fatalf("reader %d: %v, written and read %v, %v", i, trace, again, err)
			}
			p, err := New(trace, DefaultVM(), DefaultFunction())
			if err != nil {
				continue // no request
			}
			for _, s := range p.Splits {
				if s.CostPerHour < 0 || s.CostPerHour > p.Provisioning[0].CostPerHour*(1+1e-9) || s.Functions < 0 {
					t.Errorf("reader %d: %+v costs more than VMs alone: %+v", i, s, p.Provisioning[0])
				}
			}
			if svg := p.SVG(); strings.Contains(svg, "NaN") {
				t.Errorf("reader %d: %s", i, svg)
			}
		}
	})
}
