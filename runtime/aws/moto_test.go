// SPDX-License-Identifier: Apache-2.0

package aws_test

import (
	"errors"
	"testing"

	"github.com/boxer-overlay/boxer/provider/emulator"
	"github.com/boxer-overlay/boxer/runtime/aws"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// What the SDK writes to an account, this client reads there.
func TestAnAccount(t *testing.T) {
	t.Setenv("AWS_LAMBDA_FUNCTION_NAME", "")
	a := emulator.Start(t)
	a.Setenv(t)
	const name, value = "/boxer/shop/secret", "a secret of some thirty letters"
	_, err := ssm.New(ssm.Options{Region: emulator.Region, BaseEndpoint: sdk.String(a.URL()),
		Credentials: credentials.NewStaticCredentialsProvider("AKIAEMULATED00000000", "emulated", "")}).PutParameter(t.Context(), &ssm.PutParameterInput{
		Name: sdk.String(name), Value: sdk.String(value), Type: types.ParameterTypeSecureString,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := aws.New()
	if got, err := c.Parameter(t.Context(), emulator.Region, name); err != nil || got != value {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Parameter(t.Context(), emulator.Region, name+"s"); !errors.Is(err, aws.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := c.Parameter(t.Context(), "eu-west-1", name); !errors.Is(err, aws.ErrNotFound) {
		t.Errorf("in another region: %v", err)
	}
	a.Inject(emulator.Throttle("ssm", "GetParameter", 2), emulator.Broken("ssm", "GetParameter", 1))
	if got, err := c.Parameter(t.Context(), emulator.Region, name); err != nil || got != value {
		t.Errorf("throttled, then broken: %q, %v", got, err)
	}
	a.Inject(emulator.Denied("ssm", "GetParameter"))
	if _, err := c.Parameter(t.Context(), emulator.Region, name); !errors.Is(err, aws.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	if err := c.Invoke(t.Context(), emulator.Region, "boxer-shop-logic", []byte("{}")); !errors.Is(err, aws.ErrNotFound) {
		t.Errorf("a function that is not there: %v", err)
	}
}
