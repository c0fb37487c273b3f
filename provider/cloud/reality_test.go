// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/boxer-overlay/boxer/provider/emulator"
)

// What AWS does and the emulator does not, by its documentation.

// TestZones: not every zone has every type; another subnet is another request.
func TestZones(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	n := &Network{Name: "shop"}
	if err := c.place(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	subnets, err := c.SubnetsFor(t.Context(), n, "store")
	if err != nil || len(subnets) < 2 {
		t.Fatalf("%v %v", subnets, err)
	}
	image, err := c.NewestImage(t.Context(), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	a.Inject(emulator.Fault{Service: "ec2", Action: "RunInstances", Code: "Unsupported", Message: "Your requested instance type is not supported in your requested Availability Zone"})
	s := InstanceSpec{Network: "shop", Slot: "store", Part: PartVM, Name: "shop/store", ClientToken: "one", Image: image, Type: "t3.micro"}
	made, err := c.RunInstanceIn(t.Context(), s, subnets)
	if err != nil || made.Subnet != subnets[1] {
		t.Fatalf("in %s, want %s: %v", made.Subnet, subnets[1], err)
	}
	calls := a.Calls("ec2.RunInstances")
	if len(calls) != 2 || calls[0].Form().Get("ClientToken") == calls[1].Form().Get("ClientToken") {
		t.Errorf("%d calls, with the same token", len(calls))
	}
}

// TestBusy: what comes too soon after another change is asked again.
func TestBusy(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	a.Inject(
		emulator.Fault{Service: "logs", Action: "PutRetentionPolicy", Code: "OperationAbortedException", Message: "A conflicting operation is currently in progress against this resource. Please try again."},
		emulator.Fault{Service: "lambda", Action: "GetFunctionConfiguration", Status: 404, Code: "ResourceNotFoundException", Message: "Function not found"},
		emulator.Fault{Service: "lambda", Action: "PutFunctionEventInvokeConfig", Status: 409, Code: "ResourceConflictException", Message: "An update is in progress"},
		emulator.Fault{Service: "lambda", Action: "PutFunctionConcurrency", Status: 409, Code: "ResourceConflictException", Message: "An update is in progress"},
	)
	one := int32(1)
	s := FunctionSpec{Network: "shop", Node: "logic", Name: "boxer-shop-logic", Role: testRole(t, c, "logic"), MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
		Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop-logic", LogDays: 7, Reserved: &one}
	if _, err := c.CreateFunction(t.Context(), s); err != nil {
		t.Error(err)
	}
	a.Inject(emulator.Fault{Service: "lambda", Action: "PutFunctionConcurrency", Code: "InvalidParameterValueException",
		Message: "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [10]."})
	if err := c.setInvocations(t.Context(), s); err == nil || !strings.Contains(err.Error(), "leave reserved_concurrency out") {
		t.Errorf("too few are left: %v", err)
	}
	a.Inject(emulator.Fault{Service: "lambda", Action: "PutFunctionConcurrency", Status: 409, Code: "ResourceConflictException", Message: "An update is in progress"})
	if err := c.HaltFunction(t.Context(), s.Name); err != nil {
		t.Error(err)
	}
}

// TestTagsError: Lambda leaves tags out for who may not list them. The function is not
// somebody else's for that.
func TestTagsError(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	s := FunctionSpec{Network: "shop", Node: "logic", Name: "boxer-shop-logic", Role: testRole(t, c, "logic"), MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
		Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop-logic"}
	if _, err := c.CreateFunction(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	a.Inject(emulator.Fault{Service: "lambda", Action: "GetFunction", Rewrite: func(answer []byte) []byte {
		return bytes.Replace(answer, []byte("{"), []byte(`{"TagsError": {"ErrorCode": "AccessDeniedException", "Message": "not authorized to perform: lambda:ListTags"},`), 1)
	}})
	if _, err := c.FindFunction(t.Context(), s.Name); err == nil || !strings.Contains(err.Error(), "lambda:ListTags") {
		t.Errorf("%v", err)
	}
}

// TestSharedInterfaces: Lambda has one interface for all functions in a subnet with the same
// groups, named after the first. Deleting that function does not wait for it; deleting the
// last one does.
func TestSharedInterfaces(t *testing.T) {
	a := emulator.Start(t)
	c := testClient(t, a)
	n := &Network{Name: "shop"}
	if err := c.place(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	subnets, err := c.subnets(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	group, err := c.EC2.CreateSecurityGroup(t.Context(), &ec2.CreateSecurityGroupInput{GroupName: aws.String("shop"), Description: aws.String("shop"), VpcId: aws.String(n.VPC)})
	if err != nil {
		t.Fatal(err)
	}
	groups := []string{aws.ToString(group.GroupId)}
	role := testRole(t, c, "logic")
	for _, node := range []string{"first", "last"} {
		s := FunctionSpec{Network: "shop", Node: node, Name: "boxer-shop-" + node, Role: role, MemoryMB: 128, TimeoutS: 60, EphemeralMB: 512,
			Code: Code{Zip: []byte("one")}, LogGroup: "/aws/lambda/boxer-shop-" + node, Subnets: subnets[:1], Groups: groups}
		if _, err := c.CreateFunction(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	made, err := c.EC2.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{SubnetId: aws.String(subnets[0]), Groups: groups,
		Description: aws.String("AWS Lambda VPC ENI-boxer-shop-first-0f0f0f0f")})
	if err != nil {
		t.Fatal(err)
	}
	waited := 0
	remove := func(node string) error {
		return c.DeleteFunction(t.Context(), "boxer-shop-"+node, "/aws/lambda/boxer-shop-"+node, func(left int, _ time.Duration) {
			waited += left
			_, err := c.EC2.DeleteNetworkInterface(t.Context(), &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: made.NetworkInterface.NetworkInterfaceId})
			if err != nil {
				t.Error(fmt.Errorf("delete the interface: %w", err))
			}
		})
	}
	if err := remove("first"); err != nil || waited != 0 {
		t.Errorf("the first waited for %d interfaces: %v", waited, err)
	}
	if err := remove("last"); err != nil || waited != 1 {
		t.Errorf("the last waited for %d interfaces: %v", waited, err)
	}
}
