// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"time"
	"unicode/utf16"
)

// MaxUserData is what EC2 takes as user data, in bytes before base64.
const MaxUserData = 16 << 10

// scriptName is the name of our part. Scripts run in the order of their names, and those
// of the user come first: they may install what the guest needs.
const scriptName = "zz-boxer"

// boundary separates the parts.
const boundary = "=-boxer-user-data-="

// ownForms are what cloud-init takes, by how it begins, and what it is called.
var ownForms = []struct{ begins, kind string }{
	{"#!", "text/x-shellscript"}, {"#cloud-config-archive", "text/cloud-config-archive"}, {"#cloud-config-jsonp", "text/cloud-config-jsonp"},
	{"#cloud-config", "text/cloud-config"}, {"#cloud-boothook", "text/cloud-boothook"}, {"#include-once", "text/x-include-once-url"},
	{"#include", "text/x-include-url"}, {"#part-handler", "text/part-handler"}, {"## template: jinja", "text/jinja2"},
}

// UserData is what an EC2 instance is started with: the bootstrap script of vm, and the
// user's own user data (empty: none), which cloud-init handles as it would alone: a script,
// #cloud-config and so on, MIME, or any of these compressed. The same is made of the same;
// what an earlier release of Go compressed may differ, so compare what DecodeUserData says.
func UserData(vm VM, own []byte) ([]byte, error) {
	vm.Node = asciiJSON(vm.Node)
	script, err := VMScript(vm)
	if err != nil {
		return nil, err
	}
	var plain bytes.Buffer
	fmt.Fprintf(&plain, "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=%q\n\n", boundary)
	if own, err = decompress(own); err != nil {
		return nil, fmt.Errorf("user_data: %w", err)
	}
	if len(own) > 0 {
		if err := writeOwn(&plain, own); err != nil {
			return nil, fmt.Errorf("user_data: %w", err)
		}
	}
	writePart(&plain, "text/x-shellscript", scriptName, []byte(script))
	fmt.Fprintf(&plain, "--%s--\n", boundary)
	data, err := compress(plain.Bytes())
	if err != nil {
		return nil, fmt.Errorf("user data: %w", err)
	}
	if len(data) > MaxUserData {
		alone, _ := compress([]byte(script))
		return nil, fmt.Errorf("user data: %d bytes are more than the %d a VM takes: Boxer's own part has %d, of which the node's configuration is %d before compression: "+
			"shorten user_data, or move files and environment into source_dir", len(data), MaxUserData, len(alone), len(vm.Node))
	}
	return data, nil
}

// DecodeUserData takes apart what UserData made. Anything else is an error.
func DecodeUserData(data []byte) (vm VM, own []byte, err error) {
	plain, err := decompress(data)
	if err != nil {
		return VM{}, nil, fmt.Errorf("user data: %w", err)
	}
	head, body, _ := bytes.Cut(plain, []byte("\n\n"))
	if !bytes.Contains(head, []byte(boundary)) {
		return VM{}, nil, errors.New("user data: not made by Boxer")
	}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := r.NextRawPart()
		if err != nil {
			return VM{}, nil, fmt.Errorf("user data: no part %q: %w", scriptName, err)
		}
		content, err := io.ReadAll(part)
		if err == nil && part.Header.Get("Content-Transfer-Encoding") == "base64" {
			content, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(string(content), "\n", ""))
		}
		if err != nil {
			return VM{}, nil, fmt.Errorf("user data: %w", err)
		}
		if part.FileName() == scriptName {
			vm, err := parseScript(string(content))
			return vm, own, err
		}
		own = content
		if kind := part.Header.Get("Content-Type"); strings.HasPrefix(kind, "multipart/") {
			own = append([]byte("MIME-Version: 1.0\nContent-Type: "+kind+"\n\n"), content...)
		}
	}
}

// asciiJSON says the same in ASCII, which needs no encoding of the whole part.
func asciiJSON(document string) string {
	var out strings.Builder
	for _, r := range document {
		switch {
		case r < 0x7f:
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		}
	}
	return out.String()
}

func compress(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	return out.Bytes(), err
}

// decompress undoes gzip, if it is that.
func decompress(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte("\x1f\x8b")) {
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	const most = 1 << 20
	plain, err := io.ReadAll(io.LimitReader(z, most+1))
	if err == nil && len(plain) > most {
		err = fmt.Errorf("more than %d bytes when unpacked", most)
	}
	return plain, err
}

// writeOwn adds the user's own part.
func writeOwn(out *bytes.Buffer, own []byte) error {
	if bytes.Contains(own, []byte("--"+boundary)) {
		return fmt.Errorf("it holds the line --%s, which separates its parts from Boxer's", boundary)
	}
	if head := bytes.ToLower(own[:min(len(own), 4096)]); bytes.Contains(head, []byte("mime-version:")) {
		message, err := mail.ReadMessage(bytes.NewReader(own))
		if err != nil {
			return fmt.Errorf("it is no MIME message: %w", err)
		}
		body, err := io.ReadAll(message.Body)
		if err != nil {
			return err
		}
		kind, _, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
		if err != nil || !strings.HasPrefix(kind, "multipart/") {
			return fmt.Errorf("a MIME message of type %q: want multipart/mixed", message.Header.Get("Content-Type"))
		}
		fmt.Fprintf(out, "--%s\nContent-Type: %s\n\n%s\n", boundary, message.Header.Get("Content-Type"), body)
		return nil
	}
	for _, form := range ownForms {
		if bytes.HasPrefix(own, []byte(form.begins)) {
			writePart(out, form.kind, "", own)
			return nil
		}
	}
	return errors.New("cloud-init would not know what it is: write it to begin with #!, #cloud-config or another of cloud-init's forms, or be MIME multi-part")
}

// writePart adds a part. cloud-init reads a message as ASCII, whatever it says: the rest is
// encoded.
func writePart(out *bytes.Buffer, kind, name string, content []byte) {
	fmt.Fprintf(out, "--%s\nContent-Type: %s; charset=\"utf-8\"\n", boundary, kind)
	if name != "" {
		fmt.Fprintf(out, "Content-Disposition: attachment; filename=%q\n", name)
	}
	if bytes.ContainsFunc(content, func(r rune) bool { return r > 126 || r == '\r' || r == 0 }) {
		text := base64.StdEncoding.EncodeToString(content)
		out.WriteString("Content-Transfer-Encoding: base64\n\n")
		for len(text) > 76 {
			out.WriteString(text[:76] + "\n")
			text = text[76:]
		}
		out.WriteString(text + "\n")
		return
	}
	out.WriteString("\n")
	out.Write(content)
	out.WriteString("\n")
}

// parseScript reads back what VMScript wrote.
func parseScript(script string) (VM, error) {
	value := map[string]string{}
	for _, name := range []string{"layer", "sha256", "task", "task_sha256", "prefix", "config", "region", "patience", "env", "node"} {
		_, rest, found := strings.Cut(script, "\n"+name+"=")
		var ok bool
		if value[name], ok = unquote(rest); !found || !ok {
			return VM{}, fmt.Errorf("user data: the script says no %s", name)
		}
	}
	patience, err := time.ParseDuration(value["patience"] + "s")
	if err != nil {
		return VM{}, fmt.Errorf("user data: %w", err)
	}
	vm := VM{
		Layer: Fetch{value["layer"], value["sha256"]}, Task: Fetch{value["task"], value["task_sha256"]}, Region: value["region"],
		Prefix: value["prefix"], ConfigFile: value["config"], Node: value["node"], Patience: patience,
	}
	for pair := range strings.FieldsSeq(value["env"]) {
		if vm.Variables == nil {
			vm.Variables = map[string]string{}
		}
		name, value, _ := strings.Cut(pair, "=")
		vm.Variables[name] = value
	}
	return vm, nil
}

// unquote reads the word that quote made at the beginning of s.
func unquote(s string) (string, bool) {
	var word strings.Builder
	for {
		rest, ok := strings.CutPrefix(s, "'")
		text, after, closed := strings.Cut(rest, "'")
		if !ok || !closed {
			return "", false
		}
		word.WriteString(text)
		if s, ok = strings.CutPrefix(after, `\'`); !ok {
			return word.String(), true
		}
		word.WriteString("'")
	}
}
