// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Kinds of refusals; test with errors.Is.
var (
	ErrDenied    = errors.New("denied")    // by IAM, which also takes a while to know what is new
	ErrThrottled = errors.New("throttled") // asked too often
	ErrNotFound  = errors.New("not found")
	// ErrUnreachable: nobody answers, which may pass: a network or a name server comes up.
	ErrUnreachable = errors.New("no answer")
	// ErrNoCredentials: nobody has given this machine or function a role (yet).
	ErrNoCredentials = errors.New("no credentials")
)

const maxMessage = 512 // of what AWS says

// Error is a refusal by AWS.
type Error struct {
	Action   string // ssm:GetParameter
	Resource string // parameter /boxer/shop/secret in eu-west-1
	Status   int    // of HTTP
	Code     string // AccessDeniedException
	Message  string

	skewed bool // by a clock that is known now
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s of %s: %s", e.Action, e.Resource, e.Code)
	if e.Message != "" {
		text += ": " + e.Message
	}
	if remedy := e.remedy(); remedy != "" {
		text += ": " + remedy
	}
	return text
}

func (e *Error) remedy() string {
	switch {
	case e.aboutTime():
		return "set this machine's clock"
	case e.stale():
		return "the role's credentials are not known (any more): a new role takes up to two minutes"
	case e.denied() && (strings.Contains(e.Message, "kms") || strings.Contains(e.Message, "ciphertext")):
		return "allow kms:Decrypt on the key of " + e.Resource + " in this node's role"
	case e.denied():
		return fmt.Sprintf("allow %s on %s in this node's role (a new role takes up to two minutes)", e.Action, e.Resource)
	case e.throttled():
		return "it is asked for too often; try again later, or raise the account's quota"
	case e.notFound():
		return "it was deleted, or is in another region or account: apply the configuration again"
	}
	return ""
}

// Is implements errors.Is for the kinds above.
func (e *Error) Is(kind error) bool {
	switch kind {
	case ErrDenied:
		return e.denied() || e.stale()
	case ErrThrottled:
		return e.throttled()
	case ErrNotFound:
		return e.notFound()
	}
	return false
}

func (e *Error) denied() bool {
	return strings.Contains(e.Code, "AccessDenied") || e.Code == "UnauthorizedOperation" || e.Code == "KMSAccessDeniedException" ||
		e.Status == http.StatusForbidden && !e.stale() && !e.aboutTime() && !e.throttled()
}

// stale: the credentials were no good.
func (e *Error) stale() bool {
	switch e.Code {
	case "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId":
		return true
	}
	return false
}

func (e *Error) aboutTime() bool {
	switch e.Code {
	case "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture":
		return true
	}
	return e.Code == "InvalidSignatureException" && (strings.Contains(e.Message, "expired") || strings.Contains(e.Message, "not yet current"))
}

func (e *Error) throttled() bool {
	return e.Status == http.StatusTooManyRequests || strings.Contains(e.Code, "Throttl") || strings.Contains(e.Code, "TooManyRequests") ||
		e.Code == "RequestLimitExceeded" || e.Code == "SlowDown"
}

func (e *Error) notFound() bool {
	return strings.HasSuffix(e.Code, "NotFound") || strings.HasSuffix(e.Code, "NotFoundException")
}

// refusal reads an answer that is none: the header X-Amzn-Errortype or __type has
// the kind, with other things around it.
func refusal(status int, kind string, body []byte) *Error {
	e := &Error{Status: status}
	var said struct {
		Type    string `json:"__type"`
		Code    string `json:"code"`
		Message string `json:"message"` // or Message: case does not matter here
	}
	_ = json.Unmarshal(body, &said) // of a proxy, perhaps: the status is all there is
	for _, name := range []string{kind, said.Type, said.Code} {
		name, _, _ = strings.Cut(name, ":")
		name = name[strings.LastIndexByte(name, '#')+1:]
		if e.Code = clean(name); e.Code != "" {
			break
		}
	}
	if e.Code == "" {
		e.Code = strings.TrimSpace(fmt.Sprintf("status %d %s", status, http.StatusText(status)))
	}
	e.Message = clean(said.Message)
	return e
}

// clean is fit for one line of a log.
func clean(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage] + "..."
	}
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimRight(strings.TrimSpace(s), ".")
}

// plainly is err without the URL, which messages have already.
func plainly(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// unreached tells what happened when nobody has answered, and what to do.
func unreached(err error) (remedy string, kind error) {
	var name *net.DNSError
	var authority x509.UnknownAuthorityError
	var roots x509.SystemRootsError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "set this machine's clock", ErrUnreachable
	case errors.As(err, &authority), errors.As(err, &roots):
		return "install ca-certificates in the image", errStranger
	case errors.As(err, &name):
		return "check the region's name, and that this node can ask a name server", ErrUnreachable
	}
	return "check that this node has a way out: a public address, a NAT gateway, or an endpoint of the service in its VPC", ErrUnreachable
}
