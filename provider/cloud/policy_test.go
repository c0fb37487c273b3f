// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	called = regexp.MustCompile(`\bc\.(EC2|IAM|Lambda|Logs|SSM|STS)\.([A-Z]\w+)\(`)
	paged  = regexp.MustCompile(`\b(ec2|iam|lambda|cloudwatchlogs|ssm)\.New(\w+)Paginator\(`)
)

// The policy of who applies allows what the calls of this package need, no less and
// no more.
func TestApplyingIsWhatIsCalled(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	needed := map[string]string{ // besides the action of the call's own name
		"iam:PassRole": "CreateFunction, RunInstances", "iam:CreateServiceLinkedRole": "RunInstances, the first spot instance", "lambda:ListTags": "GetFunction, for the tags",
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range append(called.FindAllStringSubmatch(string(text), -1), paged.FindAllStringSubmatch(string(text), -1)...) {
			service := strings.ToLower(match[1])
			if service == "cloudwatchlogs" {
				service = "logs"
			}
			needed[Action(service, match[2])] = file
		}
	}
	allowed := map[string]bool{}
	for _, s := range Applying(Scope{}).Statement {
		for _, action := range s.Action {
			allowed[action] = true
		}
	}
	for action, file := range needed {
		if !allowed[action] {
			t.Errorf("%s calls for %s, which boxer iam-policy does not print", file, action)
		}
	}
	for action := range allowed {
		if needed[action] == "" {
			t.Errorf("boxer iam-policy prints %s, which nothing calls for", action)
		}
	}
}

// A managed policy has 6,144 characters at most, and everything but looking is bounded.
func TestApplyingIsBounded(t *testing.T) {
	d := Applying(Scope{Network: "a-network-with-a-long-name-for-this-kind-of-thing", Prefix: "some-prefix-", Account: "123456789012", Region: "ap-northeast-1"})
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 6144 {
		t.Errorf("%d characters", len(text))
	}
	for _, s := range d.Statement {
		for _, resource := range s.Resource {
			if resource == "*" && s.Sid != "Look" {
				t.Errorf("%s is of everything", s.Sid)
			}
		}
	}
}

// These have no kinds of resources: on anything less than everything they are denied.
func TestActionsOfEverything(t *testing.T) {
	for _, s := range Applying(Scope{Network: "shop"}).Statement {
		for _, action := range s.Action {
			everything := []string{"lambda:ListFunctions", "lambda:ListLayerVersions", "sts:GetCallerIdentity"}
			if (strings.HasPrefix(action, "ec2:Describe") || slices.Contains(everything, action)) && !slices.Equal(s.Resource, []string{"*"}) {
				t.Errorf("%s is on %v", action, s.Resource)
			}
		}
	}
}
