// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"testing"

	"golang.org/x/sys/unix"
)

// On a function what strangers may take, what guests may and what is on its way fit
// in the descriptors that there are, and some are left.
func TestBudgetFitsInAFunction(t *testing.T) {
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	if old.Max < 1024 {
		t.Skip("this process may have fewer descriptors than a function")
	}
	most := mostPipes
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: old.Max}))
	mostPipes = pipesFor(descriptorLimit())
	l := New(Options{})
	defer l.Close()
	strangers, guests, pipes := l.o.unproven+cap(l.short), l.descriptors.left, 2*mostPipes
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	mostPipes = most
	if all := strangers + guests + pipes; all > 1024-20 || guests < 700 || strangers < 100 {
		t.Errorf("strangers %d, guests %d, pipes %d: %d of 1024", strangers, guests, pipes, all)
	}
}
