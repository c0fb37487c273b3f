// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	columnGap = "  "
	narrowest = 6 // what is left of a column before lines are cut instead
)

// ellipsis stands for what was cut; one that every terminal can show where the
// locale is not UTF-8.
var ellipsis = "…"

func chooseEllipsis() {
	locale := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"))
	if name := strings.ToUpper(strings.ReplaceAll(locale, "-", "")); !strings.Contains(name, "UTF8") {
		ellipsis = "~"
	}
}

// column is one column of a table.
type column struct {
	title string
	// fixed values are of no use when truncated; optional ones are left out
	// where the terminal is too narrow, the last first.
	fixed, optional bool
}

// table is rows of text in columns.
type table struct {
	columns []column
	rows    [][]string
}

// widthOf is the width of the terminal w is, 0 if it is none.
func widthOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// lines are the table's, none wider than width (0: any).
func (t table) lines(width int) []string {
	shown, widths := t.fit(width)
	lines := make([]string, 0, len(t.rows)+1)
	line := func(cell func(column int) string) {
		var b strings.Builder
		for i, c := range shown {
			text := clip(cell(c), widths[i])
			b.WriteString(text)
			if i < len(shown)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)) + columnGap)
			}
		}
		text := strings.TrimRight(b.String(), " ")
		if width > 0 {
			text = clip(text, width)
		}
		lines = append(lines, text)
	}
	line(func(c int) string { return t.columns[c].title })
	for _, row := range t.rows {
		line(func(c int) string { return row[c] })
	}
	return lines
}

// fit chooses the columns to show, and their widths.
func (t table) fit(width int) (shown, widths []int) {
	for c, col := range t.columns {
		w := utf8.RuneCountInString(col.title)
		for _, row := range t.rows {
			w = max(w, utf8.RuneCountInString(row[c]))
		}
		shown, widths = append(shown, c), append(widths, w)
	}
	tooWide := func() bool {
		sum := (len(shown) - 1) * len(columnGap)
		for _, w := range widths {
			sum += w
		}
		return width > 0 && sum > width
	}
	for i := len(shown) - 1; i >= 0 && tooWide(); i-- {
		if t.columns[shown[i]].optional {
			shown, widths = append(shown[:i], shown[i+1:]...), append(widths[:i], widths[i+1:]...)
		}
	}
	for tooWide() {
		widest := -1
		for i, c := range shown {
			if !t.columns[c].fixed && widths[i] > narrowest && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return shown, widths
}

// clip cuts s to width, with an ellipsis.
func clip(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + ellipsis
}

// write prints the table as wide as w's terminal allows.
func (t table) write(w io.Writer) error {
	_, err := io.WriteString(w, strings.Join(t.lines(widthOf(w)), "\n")+"\n")
	return err
}
