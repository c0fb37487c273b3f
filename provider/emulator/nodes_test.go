// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/config"
)

const secret = "a secret that is nowhere else"

// TestNodes: an instance is a seed, another serves, and a function asks it by its name.
func TestNodes(t *testing.T) {
	t.Parallel()
	a := Start(t)
	nodes := a.RunNodes()
	ctx, c := t.Context(), through(a)
	must[*ssm.PutParameterOutput](t)(ssm.NewFromConfig(c).PutParameter(ctx, &ssm.PutParameterInput{
		Name: aws.String("/boxer/shop/secret"), Value: aws.String(secret), Type: ssmtypes.ParameterTypeSecureString}))
	zip := must[[]byte](t)(os.ReadFile(filepath.Join(os.Getenv("BOXER_BIN"), "boxer-layer-"+runtime.GOARCH+".zip")))
	functions := lambda.NewFromConfig(c)
	version := must[*lambda.PublishLayerVersionOutput](t)(functions.PublishLayerVersion(ctx, &lambda.PublishLayerVersionInput{
		LayerName: aws.String("boxer-runtime-" + runtime.GOARCH), Content: &lambdatypes.LayerVersionContentInput{ZipFile: zip}}))
	hash := must[string](t)(hexHash(codeHash(zip)))
	address := must[*ec2.AllocateAddressOutput](t)(ec2.NewFromConfig(c).AllocateAddress(ctx, &ec2.AllocateAddressInput{}))
	common := config.Node{Network: "shop", SecretRef: "ssm:" + Region + "/boxer/shop/secret", SeedEndpoints: []string{*address.PublicIp + ":7717"}}

	run := func(n config.Node) string {
		n.Network, n.SecretRef, n.SeedEndpoints, n.Site = common.Network, common.SecretRef, common.SeedEndpoints, "vpc-1/sg-1"
		n = must[config.Node](t)(config.New(n))
		data := must[[]byte](t)(layer.UserData(layer.VM{Layer: layer.Fetch{URL: *version.LayerVersionArn, SHA256: hash}, Region: Region,
			Node: string(must[[]byte](t)(json.Marshal(n)))}, nil))
		out := must[*ec2.RunInstancesOutput](t)(ec2.NewFromConfig(c).RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-1"),
			MinCount: aws.Int32(1), MaxCount: aws.Int32(1), UserData: aws.String(base64.StdEncoding.EncodeToString(data))}))
		return *out.Instances[0].InstanceId
	}
	run(config.Node{Kind: config.KindSeed, Slot: "seed-0", PublicAddress: *address.PublicIp, StateDir: "/var/lib/boxer", Invoke: "lambda:" + Region + "/boxer-shop_"})
	web := run(config.Node{Kind: config.KindVM, Slot: "web", User: layer.GuestUser, PublicAddress: config.PublicEC2, Argv: []string{"python3", "-m", "http.server", "8000", "--directory", "/"}})

	role := makeRole(t, a, "boxer-shop_function", nil)
	must[*lambda.CreateFunctionOutput](t)(functions.CreateFunction(ctx, createFunction(role, nil, *version.LayerVersionArn)))
	event := common
	event.Kind, event.Slot, event.WaitFor = config.KindFunction, "asks-0", map[string]int{"web": 1}
	event.Argv = []string{"sh", "-c", "until curl -sf http://web:8000/ >page; do sleep 0.1; done; grep -c etc/ page; env; sleep 600"}
	event = must[config.Node](t)(config.New(event))
	must[*lambda.InvokeOutput](t)(functions.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("boxer-shop_f"),
		InvocationType: lambdatypes.InvocationTypeEvent, Payload: must[[]byte](t)(json.Marshal(event))}))

	asks := "function boxer-shop_f (asks-0)"
	await(t, "the function's answer", func() bool { return strings.Contains(nodes.Logs()[asks], "\n1\n") })
	if log := nodes.Logs()[asks]; strings.Contains(log, secret) || !strings.Contains(log, "BOXER_NODE_NAME=asks-0") {
		t.Errorf("the function's environment: %s", log)
	}
	if nodes.Address(web) == "" || len(nodes.Processes()) != 3 {
		t.Errorf("%s at %q, %v", web, nodes.Address(web), nodes.Processes())
	}
	// What was asked by nodes was asked here, and only one service knows the secret.
	asked := 0
	for _, call := range a.Calls() {
		if call.String() == "ssm.GetParameter" {
			asked++
		} else if strings.Contains(call.Body, secret) && call.Service != "ssm" {
			t.Errorf("%s has the secret", call)
		}
	}
	if asked < 3 { // who gets no answer in time asks again
		t.Errorf("the secret was asked for %d times, by three nodes", asked)
	}

	must[*lambda.DeleteFunctionOutput](t)(functions.DeleteFunction(ctx, &lambda.DeleteFunctionInput{FunctionName: aws.String("boxer-shop_f")}))
	must[*ec2.TerminateInstancesOutput](t)(ec2.NewFromConfig(c).TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{web}}))
	await(t, "the end of two nodes", func() bool { return len(nodes.Processes()) == 1 })
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
