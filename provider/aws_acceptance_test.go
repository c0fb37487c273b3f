// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// onAWSAccount is the quickstart on an emulated account where nodes really run. Only
// the provider block differs from the example.
type onAWSAccount struct {
	*workspace
	a     *emulator.AWS
	nodes *emulator.Nodes
	port  int
	said  strings.Builder // all that terraform printed
}

func newOnAWS(t *testing.T) *onAWSAccount {
	t.Helper()
	c := newCloud(t)
	a := emulator.Start(t)
	q := &onAWSAccount{workspace: c.workspace(), a: a, nodes: a.RunNodes(), port: freePort(t)}
	a.Setenv(t)
	q.env = append(q.env, a.Env()...)
	copyExample(t, q.dir)
	q.change(`provider "boxer" { platform = "local" }`, `provider "boxer" { platform = "aws" }`)
	q.change("${path.module}", q.dir)
	q.change("host_port = 8080", fmt.Sprintf("host_port = %d", q.port))
	privateTmp(t, filepath.Join(q.dir, "front", "nginx.conf"))
	t.Cleanup(func() {
		if t.Failed() {
			a.Mend()
			q.run("destroy", "-auto-approve", "-no-color")
		}
	})
	return q
}

// change changes main.tf.
func (q *onAWSAccount) change(old, now string) {
	q.t.Helper()
	text := readText(q.t, filepath.Join(q.dir, "main.tf"))
	if !strings.Contains(text, old) {
		q.t.Fatalf("main.tf no longer says %q", old)
	}
	q.write("main.tf", strings.ReplaceAll(text, old, now))
}

func (q *onAWSAccount) say(args ...string) string {
	q.t.Helper()
	out := q.must(append(args, "-no-color", "-input=false")...)
	q.said.WriteString(out)
	return out
}

// answers are how often each replica answered, asked at the published port of the
// instance's public address.
func (q *onAWSAccount) answers(requests int) map[string]int {
	q.t.Helper()
	address, _ := q.values(frontVM)["public_ip"].(string)
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	counts := map[string]int{}
	replica := regexp.MustCompile(`^(logic-\d+|\S+) answers: visit \d+\n$`)
	for range requests {
		resp, err := client.Get(fmt.Sprintf("http://%s:%d/", address, q.port))
		if err != nil {
			q.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		match := replica.FindSubmatch(body)
		if err != nil || resp.StatusCode != http.StatusOK || match == nil {
			q.t.Fatalf("status %d, %q, %v", resp.StatusCode, body, err)
		}
		counts[string(match[1])]++
	}
	return counts
}

// secret is the one of the network, as AWS keeps it.
func (q *onAWSAccount) secret() string {
	q.t.Helper()
	found, err := ssm.NewFromConfig(q.a.Config()).GetParameter(context.Background(), &ssm.GetParameterInput{
		Name: aws.String("/boxer/shop/secret"), WithDecryption: aws.Bool(true)})
	if err != nil {
		q.t.Fatal(err)
	}
	return aws.ToString(found.Parameter.Value)
}

// secretIsNowhere greps all that anybody but SSM was told.
func (q *onAWSAccount) secretIsNowhere(secret string) {
	q.t.Helper()
	if len(secret) < 16 {
		q.t.Fatalf("no secret: %q", secret)
	}
	state := readText(q.t, filepath.Join(q.dir, "terraform.tfstate"))
	q.must("plan", "-out=all.bin", "-destroy", "-no-color", "-input=false")
	places := map[string]string{"state": state, "terraform's output": q.said.String(), "plan": q.must("show", "-json", "all.bin")}
	if data, err := os.ReadFile(filepath.Join(q.dir, "all.bin")); err == nil {
		places["plan file"] = string(data)
	}
	for _, call := range q.a.Calls() {
		if call.Service != "ssm" {
			places[call.String()] += call.Body + call.Path
		}
	}
	for name, log := range q.nodes.Logs() {
		places["log of "+name] = log
	}
	for name, dir := range q.nodes.Processes() {
		for _, file := range []string{"etc/boxer/node.json", "var/lib/boxer/seed.json"} {
			data, _ := os.ReadFile(filepath.Join(dir, file))
			places[name+" "+file] = string(data)
		}
		for _, environment := range environments(dir) {
			places["environment of "+name] += environment
		}
	}
	for place, text := range places {
		if strings.Contains(text, secret) {
			q.t.Errorf("the secret is in the %s", place)
		}
	}
	if !strings.Contains(state, "boxer_network") || len(places) < 12 {
		q.t.Errorf("too few places were looked at: %d", len(places))
	}
}

// environments are those of the processes that name a directory.
func environments(dir string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		if data, _ := os.ReadFile(path); strings.Contains(string(data), dir) {
			found = append(found, string(data))
		}
	}
	return found
}

func (q *onAWSAccount) allTagged() {
	q.t.Helper()
	kinds := map[string]int{}
	for _, o := range q.a.Objects() {
		kinds[o.Kind]++
		if o.Kind != "layer" && (o.Tags["boxer:network"] != "shop" || o.Tags["boxer:part"] == "") {
			q.t.Errorf("%s has the tags %v", o, o.Tags)
		}
	}
	for _, kind := range []string{"instance", "address", "group", "role", "profile", "parameter", "function", "loggroup", "layer"} {
		if kinds[kind] == 0 {
			q.t.Errorf("there is no %s: %v", kind, q.a.Objects())
		}
	}
}

func (q *onAWSAccount) nothingLeft() {
	q.t.Helper()
	if left := q.a.Leftovers(); len(left) > 0 {
		q.t.Errorf("left: %v", left)
	}
	for end := time.Now().Add(30 * time.Second); len(q.nodes.Processes()) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			q.t.Fatalf("still running: %v", q.nodes.Processes())
		}
	}
}

// commandLine looks at the network, changes it and joins it, as anybody may who can
// read its parameters.
func (q *onAWSAccount) commandLine() {
	q.t.Helper()
	boxer := func(args ...string) string {
		q.t.Helper()
		ctx, cancel := context.WithTimeout(q.t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, builtFile(q.t, "boxer"), append([]string{"--platform", "aws", "--network", "shop"}, args...)...)
		cmd.Env = q.env
		out, err := cmd.CombinedOutput()
		if err != nil {
			q.t.Fatalf("boxer %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	for _, name := range []string{"store", "front", "logic-2", "seed-0"} {
		if nodes := boxer("nodes"); !strings.Contains(nodes, name) {
			q.t.Errorf("boxer nodes does not know %s:\n%s", name, nodes)
		}
	}
	if out := boxer("scale", "logic", "2"); !strings.Contains(out, "logic has 2 replicas; stopped: logic-2") {
		q.t.Errorf("boxer scale: %s", out)
	}
	if out := boxer("scale", "logic", "3"); !strings.Contains(out, "logic has 3 replicas; started: logic-2") {
		q.t.Errorf("boxer scale: %s", out)
	}
	if out := boxer("events"); !strings.Contains(out, "boxer scale") {
		q.t.Errorf("boxer events: %s", out)
	}
	q.wrote("/aws/lambda/boxer-shop_logic", `{"level":"info","slot":"logic-0","time":"2026-11-22T12:00:00Z","message":"joined"}`, "hello", "REPORT RequestId: 1")
	if out := boxer("logs", "logic"); out != "logic-0 | hello\n" {
		q.t.Errorf("boxer logs of a function: %q", out)
	}
	if out := boxer("logs", "logic-0", "--supervisor", "--tail", "1"); out != "REPORT RequestId: 1\n" {
		q.t.Errorf("boxer logs of a replica's supervisor: %q", out)
	}
	if out := boxer("logs", "logic-1"); out != "" {
		q.t.Errorf("boxer logs of another replica: %q", out)
	}
	if out := boxer("stop", "logic-2"); !strings.HasSuffix(out, "logic-2 is stopped\n") { // its number is kept: it comes back
		q.t.Errorf("boxer stop: %q", out)
	}
	for _, wrong := range []struct{ verb, name, says string }{
		{"logs", "store", "journalctl -u boxer"}, {"logs", "nobody", "has no function node or replica of that name"},
		{"stop", "store", "take it out of the configuration and apply"}, {"stop", "logic", "boxer scale logic 0"}, {"stop", "nobody", "runs no node of that name"},
	} {
		cmd := exec.CommandContext(q.t.Context(), builtFile(q.t, "boxer"), wrong.verb, "--platform", "aws", "--network", "shop", wrong.name)
		cmd.Env = q.env
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), wrong.says) {
			q.t.Errorf("boxer %s %s: %v: %s", wrong.verb, wrong.name, err, out)
		}
	}
	if out := boxer("scale", "logic", "3"); !strings.Contains(out, "logic has 3 replicas") { // all are back
		q.t.Errorf("boxer scale: %s", out)
	}
	if out := boxer("run", "--", "redis-cli", "-h", "store", "ping"); out != "PONG\n" {
		q.t.Errorf("a guest of this machine: %q", out)
	}
}

// wrote puts lines of one environment into a log group.
func (q *onAWSAccount) wrote(group string, lines ...string) {
	q.t.Helper()
	logs := cloudwatchlogs.NewFromConfig(q.a.Config())
	_, err := logs.CreateLogStream(q.t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: aws.String(group), LogStreamName: aws.String("environment")})
	var events []logstypes.InputLogEvent
	for _, line := range lines {
		events = append(events, logstypes.InputLogEvent{Message: aws.String(line + "\n"), Timestamp: aws.Int64(time.Now().UnixMilli())})
	}
	if err == nil {
		_, err = logs.PutLogEvents(q.t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: aws.String(group), LogStreamName: aws.String("environment"), LogEvents: events})
	}
	if err != nil {
		q.t.Fatal(err)
	}
}

// published are the rules of the group that opens what front publishes.
func (q *onAWSAccount) published() (ids, rules []string) {
	q.t.Helper()
	client := ec2.NewFromConfig(q.a.Config())
	groups, err := client.DescribeSecurityGroups(q.t.Context(), &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{
		{Name: aws.String("tag:boxer:node"), Values: []string{"front"}}, {Name: aws.String("tag:boxer:part"), Values: []string{"publish"}}}})
	if err != nil {
		q.t.Fatal(err)
	}
	instance := fmt.Sprint(q.values(frontVM)["instance_id"])
	for _, group := range groups.SecurityGroups {
		if !strings.Contains(q.groupsOf(instance), aws.ToString(group.GroupId)) {
			q.t.Errorf("instance %s is not in the group of what it publishes", instance)
		}
		found, err := client.DescribeSecurityGroupRules(q.t.Context(), &ec2.DescribeSecurityGroupRulesInput{
			Filters: []types.Filter{{Name: aws.String("group-id"), Values: []string{aws.ToString(group.GroupId)}}}})
		if err != nil {
			q.t.Fatal(err)
		}
		for _, r := range found.SecurityGroupRules {
			if !aws.ToBool(r.IsEgress) {
				ids = append(ids, aws.ToString(r.SecurityGroupRuleId))
				rules = append(rules, fmt.Sprintf("%s %d-%d %s", aws.ToString(r.IpProtocol), aws.ToInt32(r.FromPort), aws.ToInt32(r.ToPort), aws.ToString(r.CidrIpv4)))
			}
		}
	}
	return ids, rules
}

func (q *onAWSAccount) groupsOf(instance string) string {
	q.t.Helper()
	out, err := ec2.NewFromConfig(q.a.Config()).DescribeInstances(q.t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
	if err != nil {
		q.t.Fatal(err)
	}
	var ids []string
	for _, g := range out.Reservations[0].Instances[0].SecurityGroups {
		ids = append(ids, aws.ToString(g.GroupId))
	}
	return strings.Join(ids, " ")
}

// opens checks that what front publishes can be reached, and is again when somebody has
// closed it, from where it may be, and not at all when it is published no more.
func (q *onAWSAccount) opens() {
	q.t.Helper()
	want := func(rules ...string) (ids []string) {
		q.t.Helper()
		ids, found := q.published()
		if !slices.Equal(found, rules) {
			q.t.Errorf("open is %q, want %q", found, rules)
		}
		return ids
	}
	open := fmt.Sprintf("tcp %d-%d ", q.port, q.port)
	ids := want(open + "0.0.0.0/0")
	group := strings.Fields(q.groupsOf(fmt.Sprint(q.values(frontVM)["instance_id"])))
	for _, id := range group {
		if _, err := ec2.NewFromConfig(q.a.Config()).RevokeSecurityGroupIngress(q.t.Context(), &ec2.RevokeSecurityGroupIngressInput{
			GroupId: aws.String(id), SecurityGroupRuleIds: ids}); err == nil {
			break
		}
	}
	want()
	if actions := q.planned(); actions[frontVM] != "update" || actions[storeVM] != "no-op" {
		q.t.Errorf("a published port was closed: %v", actions)
	}
	q.say("apply", "-auto-approve")
	want(open + "0.0.0.0/0")
	q.emptyPlan()
	q.change(fmt.Sprintf("host_port = %d }", q.port), fmt.Sprintf("host_port = %d, cidrs = [\"127.0.0.0/8\"] }", q.port))
	q.say("apply", "-auto-approve")
	want(open + "127.0.0.0/8")
	q.emptyPlan()
}

// TestAccAWS takes the quickstart through its life on AWS, with what AWS does to those
// who are too fast: apply waits for guests that really run.
func TestAccAWS(t *testing.T) {
	q := newOnAWS(t)
	q.a.Inject(emulator.RoleNotReady(2), emulator.ProfileNotReady("boxer-shop_vm", 2),
		emulator.Throttle("ec2", "RunInstances", 1), emulator.Throttle("iam", "CreateRole", 1), emulator.Throttle("ssm", "PutParameter", 1),
		emulator.Throttle("logs", "CreateLogGroup", 1), emulator.Broken("lambda", "PublishLayerVersion", 1),
		emulator.InstanceState("pending", "pending", "pending", 2))
	q.a.Inject(emulator.FunctionState("Pending", "Creating", "The function is being created.", 2)...)
	q.say("apply", "-auto-approve")
	if counts := q.answers(20); len(counts) != 2 {
		t.Errorf("answers came from %v, want both replicas", counts)
	}
	q.emptyPlan()
	q.allTagged()
	q.secretIsNowhere(q.secret())

	// The same state, with another user on another machine.
	other := *q.workspace
	other.dir = t.TempDir()
	if err := os.CopyFS(other.dir, os.DirFS(q.dir)); err != nil {
		t.Fatal(err)
	}
	other.env = append(slices.Clone(q.env), "HOME="+t.TempDir())
	other.emptyPlan()

	q.change("desired_count = 2", "desired_count = 3")
	q.say("apply", "-auto-approve")
	if running := fmt.Sprint(q.values(logicAddress)["running_count"]); running != "3" {
		t.Errorf("%s replicas run, want 3", running)
	}
	q.emptyPlan()

	q.commandLine()
	q.opens()

	// A guest's change is made in place, and one of an instance that vanished.
	q.change(`"--save", ""]`, `"--save", "", "--databases", "4"]`)
	before := q.values(storeVM)["instance_id"]
	q.say("apply", "-auto-approve")
	if after := q.values(storeVM)["instance_id"]; before == nil || after != before {
		t.Errorf("instance %v, after a change of its command %v", before, after)
	}
	if counts := q.answers(6); len(counts) == 0 {
		t.Error("nobody answers after the change")
	}
	id := fmt.Sprint(before)
	q.nodes.Kill(id)
	if _, err := ec2.NewFromConfig(q.a.Config()).TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	// Another type is another instance, in the same slot and with the same ports open.
	q.change(`name       = "front"`, "name       = \"front\"\n  instance_type = \"t3.small\"")
	if actions := q.planned(); actions[storeVM] != "create" || actions[frontVM] != "delete,create" || actions[logicAddress] != "no-op" {
		t.Errorf("an instance vanished, and one has another type: %v", actions)
	}
	front := q.values(frontVM)
	q.say("apply", "-auto-approve")
	now := q.values(frontVM)
	if now["instance_id"] == front["instance_id"] || fmt.Sprint(now["overlay_addresses"]) != fmt.Sprint(front["overlay_addresses"]) {
		t.Errorf("front was %v %v, and replaced is %v %v", front["instance_id"], front["overlay_addresses"], now["instance_id"], now["overlay_addresses"])
	}
	if _, rules := q.published(); len(rules) != 1 {
		t.Errorf("after the replacement open is %q", rules)
	}
	q.eventually("the new store answers", func() bool { return len(q.answers(6)) > 0 })
	q.emptyPlan()
	q.secretIsNowhere(q.secret())

	q.say("destroy", "-auto-approve")
	q.nothingLeft()
}

// TestAccAWSPartial: what a failed apply leaves is in the state, and destroy removes it.
func TestAccAWSPartial(t *testing.T) {
	q := newOnAWS(t)
	q.change("wait_for   = { logic = 2 }", "wait_for = { logic = 2 }\n  timeouts = { create = \"5s\" }") // it waits in vain
	q.a.Inject(emulator.Denied("lambda", "PutFunctionEventInvokeConfig"))
	out, status := q.run("apply", "-auto-approve", "-no-color", "-input=false")
	if status == 0 || !strings.Contains(out, "AccessDenied") || !strings.Contains(out, "logic") {
		t.Errorf("status %d:\n%s", status, out)
	}
	q.a.Mend()
	q.a.Inject(emulator.Throttle("ec2", "", 3), emulator.Throttle("iam", "", 3), emulator.Lost("lambda", "DeleteFunction"), emulator.Lost("ec2", "ReleaseAddress"))
	q.say("destroy", "-auto-approve")
	q.nothingLeft()
}

func (w *workspace) eventually(what string, done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within 30 s", what)
		}
	}
}
