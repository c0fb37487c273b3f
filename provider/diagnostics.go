// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

// addProblem reports err as "creating Boxer VM Node (store)": what failed, the
// guest's last words if there are any, and what to do.
func addProblem(diags *diag.Diagnostics, doing, kind, name string, err error) {
	diags.AddError(fmt.Sprintf("%s %s (%s)", doing, kind, name), strings.TrimPrefix(detail(err), name+": "))
}

// leftBehind is a failure to remove what a failed create has made.
func leftBehind(err error) error {
	return &explained{err, "It stays in Terraform's state: apply or destroy again to have it removed."}
}

func detail(err error) string {
	cause, output, remedy := err.Error(), []string(nil), ""
	var failure *launch.Failure
	var known *explained
	var remote *cloud.Error
	switch {
	case errors.As(err, &failure):
		cause, output, remedy = failure.Slot+": "+failure.Cause, failure.Output, failure.Remedy
	case errors.As(err, &known):
		cause, remedy = known.cause.Error(), known.remedy
	case errors.As(err, &remote):
		cause, remedy = strings.TrimSuffix(strings.TrimSpace(strings.TrimSuffix(err.Error(), remote.Remedy)), "."), remote.Remedy
	}
	parts := []string{sentence(cause)}
	if len(output) > 0 {
		// Terraform wraps paragraphs but leaves indented lines alone.
		parts = append(parts, "Last output:\n    "+strings.Join(output, "\n    "))
	}
	if remedy != "" {
		parts = append(parts, sentence(remedy))
	}
	return strings.Join(parts, "\n\n")
}

// sentence ends s with a full stop if it has no end mark yet.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" || strings.ContainsRune(".!?:", rune(s[len(s)-1])) {
		return s
	}
	return s + "."
}
