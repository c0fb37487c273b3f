// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Services are those with an endpoint of their own in Config.
var Services = []string{"ec2", "iam", "lambda", "logs", "ssm", "sts"}

// Config is what a configuration says of AWS. What is empty is found by the SDK:
// in the environment, in its files, from the machine's role.
type Config struct {
	Region, Profile, AssumeRoleARN string
	MaxRetries                     int               // 0: AWS_MAX_ATTEMPTS says so, else defaultRetries
	Endpoints                      map[string]string // by service
}

// defaultRetries of a call. The SDK's two do not outlast the throttling of a busy account.
const defaultRetries = 5

// busy are errors of objects that another change has not left yet, which AWS asks to try
// again and the SDK does not. DeleteConflict: a role was just taken from its profile.
var busy = []string{"OperationAbortedException", "TooManyUpdates", "ConcurrentModification", "ConcurrentModificationException",
	"DeleteConflict", "DeleteConflictException"}

// Client asks AWS, in one region, as one principal.
type Client struct {
	Region string

	EC2    *ec2.Client
	IAM    *iam.Client
	Lambda *lambda.Client
	Logs   *cloudwatchlogs.Client
	SSM    *ssm.Client
	STS    *sts.Client

	// Pause is how long a waiter waits first; it doubles up to ten times as much.
	Pause time.Duration

	mu      sync.Mutex
	account string
}

// Open makes a client. It asks nobody: that is what Account does.
func Open(ctx context.Context, c Config) (*Client, error) {
	options := []func(*config.LoadOptions) error{config.WithAppID("boxer")}
	if c.Region != "" {
		options = append(options, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(c.Profile))
	}
	if c.MaxRetries == 0 && os.Getenv("AWS_MAX_ATTEMPTS") == "" {
		c.MaxRetries = defaultRetries
	}
	if c.MaxRetries > 0 {
		options = append(options, config.WithRetryMaxAttempts(c.MaxRetries+1))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, &Error{Doing: "reading the AWS configuration", Err: err, Remedy: "Check aws.profile, AWS_PROFILE, and the files in ~/.aws."}
	}
	if cfg.Region == "" {
		return nil, &Error{Doing: "reading the AWS configuration", Err: errors.New("no region is given"),
			Remedy: "Set aws = { region = \"...\" } in the provider block, or AWS_REGION."}
	}
	at := func(service string) *string {
		if url := c.Endpoints[service]; url != "" {
			return aws.String(url)
		}
		return nil // the SDK: AWS_ENDPOINT_URL_<SERVICE>, AWS_ENDPOINT_URL, its own
	}
	tokens := sts.NewFromConfig(cfg, func(o *sts.Options) { set(&o.BaseEndpoint, at("sts")) })
	if c.AssumeRoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(tokens, c.AssumeRoleARN, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "boxer" })
		cfg.Credentials = aws.NewCredentialsCache(role)
		tokens = sts.NewFromConfig(cfg, func(o *sts.Options) { set(&o.BaseEndpoint, at("sts")) })
	}
	return &Client{
		Region: cfg.Region,
		EC2:    ec2.NewFromConfig(cfg, func(o *ec2.Options) { set(&o.BaseEndpoint, at("ec2")) }),
		IAM: iam.NewFromConfig(cfg, func(o *iam.Options) {
			set(&o.BaseEndpoint, at("iam"))
			o.Retryer = retry.AddWithErrorCodes(o.Retryer, busy...)
		}),
		Lambda: lambda.NewFromConfig(cfg, func(o *lambda.Options) { set(&o.BaseEndpoint, at("lambda")) }),
		Logs: cloudwatchlogs.NewFromConfig(cfg, func(o *cloudwatchlogs.Options) {
			set(&o.BaseEndpoint, at("logs"))
			o.Retryer = retry.AddWithErrorCodes(o.Retryer, busy...)
		}),
		SSM: ssm.NewFromConfig(cfg, func(o *ssm.Options) {
			set(&o.BaseEndpoint, at("ssm"))
			o.Retryer = retry.AddWithErrorCodes(o.Retryer, busy...)
		}),
		STS:   tokens,
		Pause: time.Second,
	}, nil
}

// set leaves what the SDK found where the configuration says nothing.
func set(endpoint **string, configured *string) {
	if configured != nil {
		*endpoint = configured
	}
}

// Account is the number of the account that the credentials belong to; asking is
// also how they are found to be good.
func (c *Client) Account(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.account == "" {
		caller, err := c.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			return "", failed("asking whose AWS credentials these are", "", err)
		}
		c.account = aws.ToString(caller.Account)
	}
	return c.account, nil
}

// Place names where the client's objects are: an account and a region.
func (c *Client) Place(ctx context.Context) (string, error) {
	account, err := c.Account(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s", account, c.Region), nil
}
