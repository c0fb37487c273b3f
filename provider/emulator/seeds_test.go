// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/rs/zerolog"

	"github.com/boxer-overlay/boxer/layer"
	"github.com/boxer-overlay/boxer/runtime/cluster"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/controller"
)

// TestSeedsLaunch: three seeds know each other by their Elastic IPs, and the one that
// leads launches functions with Lambda, past throttling and a denial.
func TestSeedsLaunch(t *testing.T) {
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
	must[*lambda.CreateFunctionOutput](t)(functions.CreateFunction(ctx, createFunction(makeRole(t, a, "boxer-shop_function", nil), nil, *version.LayerVersionArn)))
	a.Inject(Throttle("lambda", "Invoke", 1), Broken("lambda", "Invoke", 1), Fault{Service: "lambda", Action: "Invoke", Times: 1,
		Status: 403, Code: "AccessDeniedException", Message: "not yet"})

	common := config.Node{Network: "shop", SecretRef: "ssm:" + Region + "/boxer/shop/secret"}
	for range 3 {
		address := must[*ec2.AllocateAddressOutput](t)(ec2.NewFromConfig(c).AllocateAddress(ctx, &ec2.AllocateAddressInput{}))
		common.SeedEndpoints = append(common.SeedEndpoints, *address.PublicIp+":7717")
	}
	for i, endpoint := range common.SeedEndpoints {
		n := common
		n.Kind, n.Slot, n.Site, n.StateDir, n.Invoke = config.KindSeed, cluster.SeedName(i), "vpc-1/sg-1", "/var/lib/boxer", "lambda:"+Region+"/boxer-shop_"
		n.PublicAddress = endpoint[:len(endpoint)-len(":7717")]
		n = must[config.Node](t)(config.New(n))
		data := must[[]byte](t)(layer.UserData(layer.VM{Layer: layer.Fetch{URL: *version.LayerVersionArn, SHA256: hash}, Region: Region,
			Node: string(must[[]byte](t)(json.Marshal(n)))}, nil))
		must[*ec2.RunInstancesOutput](t)(ec2.NewFromConfig(c).RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-1"),
			MinCount: aws.Int32(1), MaxCount: aws.Int32(1), UserData: aws.String(base64.StdEncoding.EncodeToString(data))}))
	}

	var watch *cluster.Session
	await(t, "a seed that leads", func() bool {
		trying, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var err error
		watch, err = cluster.Observe(trying, cluster.Options{Network: "shop", Secret: []byte(secret), Seeds: common.SeedEndpoints, Logger: zerolog.Nop()})
		return err == nil
	})
	defer watch.Close()
	event := common
	event.Kind, event.Slot, event.Argv = config.KindFunction, "f-0", []string{"sleep", "600"}
	event = must[config.Node](t)(config.New(event))
	event.Slot, event.Name, event.Service = "", "", "f"
	await(t, "the declaration", func() bool {
		calling, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return watch.CallLeader(calling, controller.MethodDeclare, controller.Declaration{Name: "f", Function: "f", Node: event, Count: 2, MemoryMB: 512}, nil) == nil
	})
	await(t, "two replicas and three seeds", func() bool {
		running, seeds := 0, 0
		for _, m := range watch.Members() {
			switch {
			case m.State != cluster.StateRunning:
			case m.Kind == config.KindSeed && m.NAT == cluster.NATNone && m.PublicAddress.String()+":7717" == common.SeedEndpoints[must[int](t)(seedNumber(m.Slot))]:
				seeds++
			case m.Service == "f":
				running++
			}
		}
		return running == 2 && seeds == 3
	})
	launches := 0
	for _, call := range a.Calls() {
		if call.String() == "lambda.Invoke" {
			launches++
		}
	}
	if launches < 5 {
		t.Errorf("Lambda was asked %d times: want two launches, and three that failed", launches)
	}
	// A launch that was late was launched again: whoever was second ends.
	await(t, "five processes", func() bool { return len(nodes.Processes()) == 5 })
}

func seedNumber(slot string) (n int, err error) {
	_, err = fmt.Sscanf(slot, "seed-%d", &n)
	return n, err
}
