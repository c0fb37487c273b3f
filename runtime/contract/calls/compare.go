// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// difference is where the two sides part.
type difference struct {
	seed          uint64
	sequence      sequence
	at            int
	native, boxed []outcome
	count         int
	times, of     int // how often it came, of how many tries
}

// same tells whether two outcomes look the same to a program. The length of an
// accept queue, and whether a connection that has ended is closed, do not show.
func (o outcome) same(other outcome) bool {
	return o.result == other.result && o.died == other.died && o.visible() == other.visible()
}

// visible are the states without what does not show.
func (o outcome) visible() (v [2]string) {
	for role, text := range o.raw {
		slots := strings.Split(text, ",")
		for i, slot := range slots {
			if dot := strings.LastIndex(slot, "."); dot >= 0 {
				slots[i] = slot[:dot]
			}
		}
		v[role] = strings.Join(slots, ",")
	}
	return v
}

// compare finds the first step that differs. boxed may end early where nothing
// more can be compared.
func compare(s sequence, native, boxed []outcome) *difference {
	for i := range native {
		if i > 0 && i == len(boxed) && native[i-1].stuck(s[i-1]) {
			return nil
		}
		if i >= len(boxed) || !native[i].same(boxed[i]) {
			return &difference{sequence: s[:i+1], at: i, native: native[:i+1], boxed: boxed[:min(i+1, len(boxed))]}
		}
	}
	return nil
}

func (d *difference) step() step { return d.sequence[d.at] }

func (d *difference) ends() (native, boxed outcome) {
	native = d.native[d.at]
	if d.at < len(d.boxed) {
		boxed = d.boxed[d.at]
	}
	return native, boxed
}

// signature groups differences of one kind.
func (d *difference) signature() string {
	n, b := d.ends()
	if n.result != b.result {
		return fmt.Sprintf("%s: %s, not %s", d.step().op, b.result, n.result)
	}
	var changed []string
	for role := range 2 {
		ns, bs := strings.Split(n.visible()[role], ","), strings.Split(b.visible()[role], ",")
		for i := range ns {
			if i < len(bs) && ns[i] != bs[i] {
				changed = append(changed, fmt.Sprintf("%s, not %s", bs[i], ns[i]))
			}
		}
	}
	if len(changed) > 0 {
		return fmt.Sprintf("%s (%s): state %s", d.step().op, n.result, changed[0])
	}
	return d.step().op + ": no answer"
}

func (d *difference) String() string {
	return fmt.Sprintf("--- seed %d, %d of %d times: %s\n%s", d.seed, d.times, d.of, d.signature(), render(d.sequence, d.native, d.boxed))
}

// render shows a sequence and what came of it.
func render(s sequence, native, boxed []outcome) string {
	var b strings.Builder
	for i, st := range s {
		if i >= len(native) {
			break
		}
		fmt.Fprintf(&b, "%2d %-36s %s", i, st, native[i].result)
		if i < len(boxed) && boxed[i].same(native[i]) {
			fmt.Fprintf(&b, "   [%s | %s]\n", native[i].raw[0], native[i].raw[1])
			continue
		}
		fmt.Fprintf(&b, "   [%s | %s]\n", native[i].raw[0], native[i].raw[1])
		if i < len(boxed) {
			fmt.Fprintf(&b, "   %36s %s   [%s | %s]  <--- boxer\n", "", boxed[i].result, boxed[i].raw[0], boxed[i].raw[1])
		}
	}
	return b.String()
}

// shrink drops steps as long as the sides still part in the same way.
func (f *fuzzer) shrink(native, boxed *side, d *difference) (*difference, error) {
	for size := max(1, len(d.sequence)/4); size > 0; size /= 2 {
		for at := len(d.sequence) - 1 - size; at >= 0; at -= size {
			if at+size >= len(d.sequence) {
				continue
			}
			shorter := append(append(sequence{}, d.sequence[:at]...), d.sequence[at+size:]...)
			e, err := f.play(native, boxed, shorter)
			if err != nil {
				return nil, err
			}
			if e != nil && e.signature() == d.signature() {
				e.seed, e.times, e.of = d.seed, d.times, d.of
				d = e
			}
		}
	}
	return d, nil
}
