// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"time"
)

// Fault has calls fail, or their answers look different. It strikes the first calls
// that it is about, as often as Times says.
type Fault struct {
	Service, Action string // empty: any
	Match           string // in the path or the body of the request; empty: any
	Skip            int    // so many calls pass first
	Times           int    // it strikes so often; 0: once; negative: always

	Name string // for Call.Fault; default: what it does

	// The call fails with this, in the service's own form, and has no effect.
	Status        int
	Code, Message string

	Reset   bool                // the connection is cut; the call has no effect
	Lost    bool                // the call takes effect, and the connection is cut
	Delay   time.Duration       // before the call
	Rewrite func([]byte) []byte // of an answer that is no error
}

// Inject adds faults. The first one that is about a call strikes.
func (a *AWS) Inject(faults ...Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range faults {
		if f.Times == 0 {
			f.Times = 1
		}
		if f.Name == "" {
			f.Name = f.describe()
		}
		a.faults = append(a.faults, &f)
	}
}

// Mend takes all faults away.
func (a *AWS) Mend() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = nil
}

func (f Fault) describe() string {
	switch {
	case f.Code != "":
		return f.Code
	case f.Reset:
		return "reset"
	case f.Lost:
		return "lost"
	case f.Rewrite != nil:
		return "rewritten"
	}
	return "slow"
}

func (f Fault) about(c Call) bool {
	return (f.Service == "" || f.Service == c.Service) && (f.Action == "" || f.Action == c.Action) &&
		(f.Match == "" || strings.Contains(c.Path, f.Match) || strings.Contains(c.Body, f.Match))
}

// strikes is the fault of a call; the zero one: none.
func (a *AWS) strikes(c Call) Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.faults {
		if f.Times == 0 || !f.about(c) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			f.Times--
		}
		return *f
	}
	return Fault{}
}

// answer is the error in the form of the call's service.
func (f Fault) answer(c Call) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	const id = "00000000-0000-4000-8000-000000000000"
	w.Header().Set("X-Amzn-Requestid", id)
	status := f.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	switch c.Service {
	case "lambda", "ssm", "logs":
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("X-Amzn-Errortype", f.Code)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": f.Code, "Type": "User", "message": f.Message})
	case "ec2":
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>%s</RequestID></Response>`,
			f.Code, escape(f.Message), id)
	default:
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>`,
			f.Code, escape(f.Message), id)
	}
	return w
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// RoleNotReady is what Lambda says of a role that has just been made.
func RoleNotReady(times int) Fault {
	return Fault{Service: "lambda", Action: "CreateFunction", Times: times, Code: "InvalidParameterValueException",
		Message: "The role defined for the function cannot be assumed by Lambda."}
}

// ProfileNotReady is what EC2 says of an instance profile that has just been made.
func ProfileNotReady(profile string, times int) Fault {
	return Fault{Service: "ec2", Action: "RunInstances", Times: times, Code: "InvalidParameterValue",
		Message: "Value (" + profile + ") for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"}
}

// Throttle is what a service says to who asks too often.
func Throttle(service, action string, times int) Fault {
	f := Fault{Service: service, Action: action, Times: times, Code: "ThrottlingException", Message: "Rate exceeded"}
	switch service {
	case "ec2":
		f.Status, f.Code, f.Message = http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded."
	case "iam", "sts":
		f.Code = "Throttling"
	case "lambda":
		f.Status, f.Code, f.Message = http.StatusTooManyRequests, "TooManyRequestsException", "Rate Exceeded."
	}
	return f
}

// Broken is a failure of the service itself.
func Broken(service, action string, times int) Fault {
	f := Fault{Service: service, Action: action, Times: times, Status: http.StatusInternalServerError,
		Code: "InternalError", Message: "An internal error has occurred"}
	switch service {
	case "lambda":
		f.Code = "ServiceException"
	case "iam":
		f.Code = "ServiceFailure"
	case "ssm":
		f.Code = "InternalServerError"
	case "logs":
		f.Code = "ServiceUnavailableException"
	}
	return f
}

// Denied is what a call gets that no policy allows.
func Denied(service, action string) Fault {
	f := Fault{Service: service, Action: action, Times: -1, Status: http.StatusForbidden, Code: "AccessDenied",
		Message: "User: arn:aws:iam::" + Account + ":user/tester is not authorized to perform: " + service + ":" + action}
	switch service {
	case "ec2":
		f.Code = "UnauthorizedOperation"
	case "lambda", "ssm", "logs":
		f.Code = "AccessDeniedException"
	}
	return f
}

// Lost is a call that takes effect, but whose answer does not arrive.
func Lost(service, action string) Fault { return Fault{Service: service, Action: action, Lost: true} }

// FunctionState has reads of functions say that they are in a state (Pending, Failed).
func FunctionState(state, code, reason string, times int) []Fault {
	change := func(body []byte) []byte {
		var answer map[string]any
		if json.Unmarshal(body, &answer) != nil {
			return body
		}
		configuration, ok := answer["Configuration"].(map[string]any)
		if !ok {
			configuration = answer
		}
		configuration["State"], configuration["StateReasonCode"], configuration["StateReason"] = state, code, reason
		out, err := json.Marshal(answer)
		if err != nil {
			return body
		}
		return out
	}
	return []Fault{
		{Service: "lambda", Action: "GetFunction", Times: times, Name: state, Rewrite: change},
		{Service: "lambda", Action: "GetFunctionConfiguration", Times: times, Name: state, Rewrite: change},
	}
}

var instanceState = regexp.MustCompile(`(<instanceState>\s*<code>)\d+(</code>\s*<name>)[a-z-]+(</name>)`)
var stateReason = regexp.MustCompile(`(?s)<stateReason>.*?</stateReason>`)

// InstanceState has reads of instances say that they are in a state.
func InstanceState(state, code, reason string, times int) Fault {
	number := map[string]string{"pending": "0", "running": "16", "shutting-down": "32", "terminated": "48", "stopping": "64", "stopped": "80"}[state]
	return Fault{Service: "ec2", Action: "DescribeInstances", Times: times, Name: state, Rewrite: func(body []byte) []byte {
		body = instanceState.ReplaceAll(body, []byte("${1}"+number+"${2}"+state+"${3}"))
		return stateReason.ReplaceAll(body, []byte("<stateReason><code>"+escape(code)+"</code><message>"+escape(reason)+"</message></stateReason>"))
	}}
}

// codeHash is what Lambda calls CodeSha256.
func codeHash(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}
