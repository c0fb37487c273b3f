// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// ErrNotFound is that AWS positively knows no such object. Only this says that
// something is gone.
var ErrNotFound = errors.New("not found")

// ErrForeign is that an object has the name of one of ours, but not our tag.
var ErrForeign = errors.New("exists and was made by somebody else")

// Error is what failed, on what, why, and what to do.
type Error struct {
	Doing  string // "creating the security group"
	On     string // its name or id; may be empty
	Err    error
	Remedy string // whole sentences; may be empty
}

func (e *Error) Error() string {
	text := e.Cause()
	if e.Remedy != "" {
		text += ". " + e.Remedy
	}
	return text
}

// Cause is all of it but what to do.
func (e *Error) Cause() string {
	if e.On == "" {
		return fmt.Sprintf("%s: %s", e.Doing, reason(e.Err))
	}
	return fmt.Sprintf("%s %s: %s", e.Doing, e.On, reason(e.Err))
}

func (e *Error) Unwrap() error { return e.Err }

// failed is err in words for users; nil stays nil.
func failed(doing, on string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return &Error{Doing: doing, On: on, Err: err, Remedy: remedy(err)}
}

// reason is what AWS said, without how it was asked: the SDK's own words begin
// with the operation, the request and the number of attempts.
func reason(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		if api.ErrorMessage() == "" {
			return api.ErrorCode()
		}
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	var wire *net.OpError
	if errors.As(err, &wire) {
		return fmt.Sprintf("%s does not answer: %v", wire.Addr, wire.Err)
	}
	return err.Error()
}

// code is AWS's name of an error, "" for others.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// is says whether err has one of these codes.
func is(err error, codes ...string) bool { return err != nil && slices.Contains(codes, code(err)) }

// says is whether err has this code, and this in its message.
func says(err error, is, words string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == is && strings.Contains(strings.ToLower(api.ErrorMessage()), strings.ToLower(words))
}

// missing says whether err is AWS's positive word that an object is not there.
func missing(err error) bool {
	c := code(err)
	return errors.Is(err, ErrNotFound) || strings.HasSuffix(c, ".NotFound") || strings.HasSuffix(c, "NotFoundException") ||
		slices.Contains([]string{"NoSuchEntity", "NoSuchEntityException", "ParameterNotFound", "InvalidInstanceID.Malformed", "InvalidAllocationID.NotFound"}, c)
}

// denied, unknown and limited are the codes that have a remedy.
var (
	denied  = []string{"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation"}
	unknown = []string{"InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "SignatureDoesNotMatch", "InvalidSignatureException"}
	expired = []string{"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
	limited = []string{"LimitExceeded", "LimitExceededException", "AddressLimitExceeded", "InstanceLimitExceeded", "VcpuLimitExceeded",
		"SecurityGroupLimitExceeded", "ParameterLimitExceeded", "CodeStorageExceededException", "ServiceQuotaExceededException"}
	throttled = []string{"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "TooManyUpdates"}
)

// remedy says what to do about err, "" if its words are all there is.
func remedy(err error) string {
	var wire *net.OpError
	var auth *aws.MissingRegionError
	switch {
	case is(err, denied...):
		return "The principal that applies lacks a permission: \"boxer iam-policy\" prints all that it needs."
	case is(err, unknown...):
		return "AWS does not know these credentials: check aws.profile, AWS_PROFILE and AWS_ACCESS_KEY_ID, and \"aws sts get-caller-identity\"."
	case is(err, expired...):
		return "The credentials have expired: log in again (\"aws sso login\", or what you use), then apply again."
	case is(err, limited...):
		return "A quota of the account is used up: remove what is not needed, or ask for more in the Service Quotas console, then apply again."
	case is(err, throttled...):
		return "AWS takes no more requests for the moment: apply again, with fewer at a time (terraform apply -parallelism=2) or more aws.max_retries."
	case errors.As(err, &auth), strings.Contains(err.Error(), "get credentials"), strings.Contains(err.Error(), "failed to retrieve credentials"):
		return "No usable AWS credentials were found: set aws.profile or AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in (\"aws sso login\")."
	case errors.As(err, &wire):
		return "Check the network, the region, and the endpoints (aws.endpoints, AWS_ENDPOINT_URL)."
	case errors.Is(err, context.DeadlineExceeded):
		return "Give it more time with timeouts, then apply again."
	}
	return ""
}

// Passing says whether err says nothing about what there is: AWS is busy, or does
// not answer.
func Passing(err error) bool {
	var wire *net.OpError
	return is(err, throttled...) || is(err, "InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "ServiceUnavailableException",
		"ServiceException", "ServiceFailure", "Unavailable", "RequestTimeout") || errors.As(err, &wire)
}
