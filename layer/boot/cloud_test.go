// SPDX-License-Identifier: Apache-2.0

package boot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	region  = "eu-west-1"
	account = "123456789012"
	secret  = "the-network-secret-of-this-test"

	serviceAddress = "10.77.254.1" // Lambda, its downloads, and Systems Manager
	roleName       = "boxer-shop-vm"
)

// role is what instances are given; they are in nobody's logs and arguments.
var role = aws.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", SessionToken: "IQoJb3JpZ2luX2VjE//session/token=="}

// What is wrong with an instance's world.
const (
	fine      = ""
	silent    = "silent"    // no metadata yet
	roleless  = "roleless"  // no credentials in the metadata yet
	refused   = "refused"   // the role may not, yet
	truncated = "truncated" // downloads end in their middle
	wrong     = "wrong"     // downloads are of something else
	slow      = "slow"      // downloads hardly move
	forbidden = "forbidden" // the package is not this role's to read
	hidden    = "hidden"    // nor is the secret
)

// account of AWS, as far as an instance sees it.
type cloud struct {
	t    *testing.T
	s    *space
	mu   sync.Mutex
	vms  map[string]*instance // by address
	zips map[string][]byte    // by ARN
}

type instance struct {
	id       string
	userData []byte
	tags     map[string]string
	trouble  string
	asked    []string // what it asked for
}

func newCloud(t *testing.T, s *space) *cloud {
	t.Helper()
	c := &cloud{t: t, s: s, vms: map[string]*instance{}, zips: map[string][]byte{}}
	s.ip(t, "address add 169.254.169.254/32 dev lo")
	s.ip(t, "address add "+serviceAddress+"/32 dev lo")
	c.serve(s.listen(t, "169.254.169.254:80", 1), c.metadata)
	c.serve(s.listen(t, serviceAddress+":80", 0), c.services)
	return c
}

func (c *cloud) serve(ln net.Listener, handle http.HandlerFunc) {
	server := &http.Server{Handler: handle, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(ln) }()
	c.t.Cleanup(func() { server.Close() })
}

// set changes an instance.
func (c *cloud) set(address string, change func(*instance)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vms[address] == nil {
		c.vms[address] = &instance{tags: map[string]string{}}
	}
	change(c.vms[address])
}

// heard is whether it asked for something that begins so.
func (c *cloud) heard(address, what string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, asked := range c.vms[address].asked {
		if strings.HasPrefix(asked, what) {
			n++
		}
	}
	return n
}

// caller is a copy of the instance that asks, after it is noted what for.
func (c *cloud) caller(r *http.Request, what string) instance {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	c.mu.Lock()
	defer c.mu.Unlock()
	vm := c.vms[address]
	if vm == nil {
		return instance{}
	}
	vm.asked = append(vm.asked, what)
	return *vm
}

const imdsToken = "AQAAAtoken=="

// metadata is the instance metadata service, version 2 alone.
func (c *cloud) metadata(w http.ResponseWriter, r *http.Request) {
	vm := c.caller(r, r.Method+" "+r.URL.Path)
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // any version of it
	switch {
	case vm.trouble == silent:
		http.Error(w, "", http.StatusServiceUnavailable)
	case r.Method == http.MethodPut && path == "api/token":
		if r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") == "" || r.Header.Get("X-Forwarded-For") != "" {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, imdsToken)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != imdsToken:
		c.caller(r, "without a token: "+r.URL.Path)
		http.Error(w, "", http.StatusUnauthorized)
	default:
		c.tell(w, path, vm)
	}
}

func (c *cloud) tell(w http.ResponseWriter, path string, vm instance) {
	texts := map[string]string{
		"meta-data":             "ami-id\nhostname\ninstance-id\nlocal-hostname\nlocal-ipv4\nplacement/",
		"meta-data/instance-id": vm.id, "meta-data/ami-id": "ami-0", "meta-data/hostname": "ip-10-77-0-2",
		"meta-data/local-hostname": "ip-10-77-0-2", "meta-data/local-ipv4": "10.77.0.2",
		"meta-data/placement": "availability-zone", "meta-data/placement/availability-zone": region + "a",
		"dynamic/instance-identity": "document", "dynamic/instance-identity/document": `{"region":"` + region + `"}`,
	}
	if vm.trouble != roleless {
		credentials, _ := json.MarshalIndent(map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": role.AccessKeyID, "SecretAccessKey": role.SecretAccessKey,
			"Token": role.SessionToken, "Expiration": time.Now().Add(6 * time.Hour).UTC().Format(time.RFC3339),
		}, "", "  ")
		texts["meta-data/iam/security-credentials"] = roleName
		texts["meta-data/iam/security-credentials/"+roleName] = string(credentials)
	}
	for name, value := range vm.tags {
		texts["meta-data/tags/instance/"+name] = value
	}
	text, known := texts[strings.TrimSuffix(path, "/")]
	switch {
	case path == "user-data":
		_, _ = w.Write(vm.userData)
	case known:
		fmt.Fprint(w, text)
	default:
		http.Error(w, "", http.StatusNotFound)
	}
}

// services answers what is signed as AWS wants it.
func (c *cloud) services(w http.ResponseWriter, r *http.Request) {
	if number, ok := strings.CutPrefix(r.URL.Path, "/download/"); ok {
		c.download(w, r, number)
		return
	}
	service := "lambda"
	switch {
	case r.Header.Get("X-Amz-Target") == "AmazonSSM.GetParameter":
		service = "ssm"
	case strings.HasPrefix(r.URL.Path, "/packages/"):
		service = "s3"
	}
	vm := c.caller(r, service+" "+r.URL.Path)
	if service == "ssm" {
		if vm.trouble == hidden {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"AccessDeniedException","Message":"is not authorized to perform: ssm:GetParameter"}`)
			return
		}
		fmt.Fprintf(w, `{"Parameter":{"Name":"/boxer/shop/secret","Type":"SecureString","Value":%q,"Version":1}}`, secret)
		return
	}
	if why := checkSigned(r, service); why != "" {
		refuse(w, http.StatusForbidden, "InvalidSignatureException", why)
		return
	}
	if service == "s3" {
		if vm.trouble == forbidden {
			refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
			return
		}
		c.mu.Lock()
		data := c.zips["s3:/"+r.URL.Path]
		c.mu.Unlock()
		http.ServeContent(w, r, "package.zip", time.Time{}, bytes.NewReader(data))
		return
	}
	var name, version string
	if _, err := fmt.Sscanf(strings.ReplaceAll(r.URL.Path, "/", " "), " 2018-10-31 layers %s versions %s", &name, &version); err != nil {
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", "no such operation")
		return
	}
	arn := layerARN(name, version)
	c.mu.Lock()
	_, known := c.zips[arn]
	c.mu.Unlock()
	switch {
	case vm.trouble == refused:
		refuse(w, http.StatusForbidden, "AccessDeniedException", "User: arn:aws:sts::"+account+":assumed-role/"+roleName+
			"/i-0 is not authorized to perform: lambda:GetLayerVersion on resource: "+arn)
	case !known:
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", "The resource you requested does not exist.")
	default:
		// As Lambda does: the URL holds characters that mean something to shells and sed.
		fmt.Fprintf(w, `{"CodeSha256":"x","Content":{"CodeSha256":"y","CodeSize":1,"Location":"http://%s/download/%s?versionId=a.b\u0026X-Amz-Signature=%s&x=%%2F"},"LayerVersionArn":%q,"Version":%s}`,
			serviceAddress, arn, strings.Repeat("0f", 32), arn, version)
	}
}

func layerARN(name, version string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:layer:%s:%s", region, account, name, version)
}

func refuse(w http.ResponseWriter, status int, kind, message string) {
	w.Header().Set("X-Amzn-Errortype", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"Message": message})
}

// checkSigned makes the signature again, as the SDK does it.
func checkSigned(r *http.Request, service string) string {
	when, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "no date"
	}
	again, err := http.NewRequestWithContext(context.Background(), r.Method, "http://"+r.Host+r.URL.RequestURI(), nil)
	if err != nil {
		return err.Error()
	}
	if sum := r.Header.Get("X-Amz-Content-Sha256"); sum != "" {
		again.Header.Set("X-Amz-Content-Sha256", sum)
	}
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if err := v4.NewSigner().SignHTTP(context.Background(), role, again, nothing, service, region, when); err != nil {
		return err.Error()
	}
	plain := func(s string) string { return strings.ReplaceAll(s, " ", "") }
	if got, want := r.Header.Get("Authorization"), again.Header.Get("Authorization"); plain(got) != plain(want) {
		return "The request signature we calculated does not match: " + got + ", want " + want
	}
	if r.Header.Get("X-Amz-Security-Token") != role.SessionToken {
		return "The security token included in the request is invalid"
	}
	return ""
}

// download serves a zip, or what an instance's trouble makes of it.
func (c *cloud) download(w http.ResponseWriter, r *http.Request, arn string) {
	vm := c.caller(r, "download "+r.Header.Get("Range"))
	c.mu.Lock()
	data := c.zips[arn]
	c.mu.Unlock()
	if r.Header.Get("X-Amz-Security-Token") != "" {
		c.caller(r, "credentials sent to the download")
	}
	switch vm.trouble {
	case truncated:
		from := 0
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		rest := data[min(from, len(data)):]
		w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(rest[:len(rest)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case wrong:
		fmt.Fprint(w, "this is something else")
	case slow:
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:1000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		http.ServeContent(w, r, "layer.zip", time.Time{}, bytes.NewReader(data))
	}
}
