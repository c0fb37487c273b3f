// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// ec2 is a VM as the provider describes one.
func ec2() VM {
	return VM{
		Layer:  Fetch{"arn:aws:lambda:eu-west-1:123456789012:layer:boxer-runtime-amd64:7", strings.Repeat("a", 64)},
		Task:   Fetch{"s3://bucket/some/key.zip", strings.Repeat("b", 64)},
		Region: "eu-west-1", Prefix: DefaultPrefix, ConfigFile: DefaultConfigFile, Patience: DefaultPatience,
		Node:      `{"argv":["sh","-c","echo 'it''s' $HOME"],"env":{"A":"b\nnode='x'"}}`,
		Variables: map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_SSM": "http://127.0.0.1:2"},
	}
}

func TestUserData(t *testing.T) {
	for name, own := range map[string]string{
		"none":         "",
		"script":       "#!/bin/sh\necho \"it's\" $(id)\n",
		"cloud-config": "#cloud-config\npackages: [nginx]",
		"unicode":      "#!/bin/sh\necho Grüße\r\n",
		"mime":         "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"x\"\n\n--x\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n\n--x--\n",
	} {
		t.Run(name, func(t *testing.T) {
			vm := ec2()
			if name == "unicode" {
				vm.Node = `{"env":{"A":"Grüße 🎁"}}`
			}
			data, err := UserData(vm, []byte(own))
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := UserData(vm, []byte(own)); !bytes.Equal(data, again) {
				t.Error("not the same twice")
			}
			if len(data) > MaxUserData*2/5 {
				t.Errorf("%d bytes leave little room of %d", len(data), MaxUserData)
			}
			packed, err := compress([]byte(own))
			if err != nil {
				t.Fatal(err)
			}
			if other, err := UserData(vm, packed); own != "" && (err != nil || !bytes.Equal(data, other)) {
				t.Errorf("compressed by the user: %v", err)
			}
			got, gotOwn, err := DecodeUserData(data)
			var node, gotNode any
			if json.Unmarshal([]byte(vm.Node), &node) != nil || json.Unmarshal([]byte(got.Node), &gotNode) != nil || !reflect.DeepEqual(node, gotNode) {
				t.Errorf("node %s, want %s", got.Node, vm.Node)
			}
			got.Node = vm.Node
			if err != nil || !reflect.DeepEqual(got, vm) || string(gotOwn) != own {
				t.Errorf("decoded: %v\n got %+v %q\nwant %+v %q", err, got, gotOwn, vm, own)
			}
			plain, err := decompress(data)
			if err != nil {
				t.Fatal(err)
			}
			if i := bytes.IndexFunc(plain, func(r rune) bool { return r > 126 }); i >= 0 {
				t.Errorf("cloud-init would break what is not ASCII: %q", plain[i:i+20])
			}
		})
	}
}

func TestUserDataRefused(t *testing.T) {
	noise := make([]byte, MaxUserData)
	_, _ = rand.Read(noise)
	for want, own := range map[string]string{
		"would not know what it is":  "echo hello",
		"separates its parts":        "#!/bin/sh\n# --" + boundary,
		"want multipart/mixed":       "MIME-Version: 1.0\nContent-Type: text/plain\n\nx",
		"more than the 16384 a VM":   "#!/bin/sh\n" + string(noise),
		"user_data: unexpected EOF":  "\x1f\x8b",
		"bytes when unpacked":        string(bomb(t)),
		"Boxer's own part has":       "#!/bin/sh\n" + string(noise),
		"no MIME message: malformed": "MIME-Version: 1.0\nno header\n\n",
	} {
		if _, err := UserData(ec2(), []byte(own)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for _, data := range []string{"", "#!/bin/sh\n", "MIME-Version: 1.0\n\n" + boundary + "\n"} {
		if vm, _, err := DecodeUserData([]byte(data)); err == nil {
			t.Errorf("%q decoded to %+v", data, vm)
		}
	}
}

func bomb(t *testing.T) []byte {
	data, err := compress(make([]byte, 2<<20))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzDecodeUserData(f *testing.F) {
	data, err := UserData(ec2(), nil)
	if err != nil {
		f.Fatal(err)
	}
	plain, _ := decompress(data)
	f.Add(data)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, data []byte) {
		if vm, _, err := DecodeUserData(data); err == nil && vm.Node == "" && len(data) == 0 {
			t.Errorf("%+v", vm)
		}
	})
}
