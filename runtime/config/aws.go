// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Places on AWS that a document names.
const (
	secretOnSSM    = "ssm:"    // ssm:REGION/NAME, the name with its slash
	invokeOnLambda = "lambda:" // lambda:REGION/PREFIX, before functions' names

	// PublicEC2 is the PublicAddress of a node that asks its instance's metadata;
	// PublicNone of one that only its site can dial.
	PublicEC2  = "ec2"
	PublicNone = "none"

	maxParameter = 1011 // Systems Manager's limit for a name
	maxFunction  = 64   // Lambda's
)

// SecretParameter is the parameter of Systems Manager that SecretRef names.
func (n *Node) SecretParameter() (region, name string, ok bool) {
	place, ok := strings.CutPrefix(n.SecretRef, secretOnSSM)
	if !ok {
		return "", "", false
	}
	region, name, ok = strings.Cut(place, "/")
	return region, "/" + name, ok
}

// InvokeLambda is where Invoke launches functions, if that is Lambda: NAME is
// launched as prefix + NAME.
func (n *Node) InvokeLambda() (region, prefix string, ok bool) {
	place, ok := strings.CutPrefix(n.Invoke, invokeOnLambda)
	if !ok {
		return "", "", false
	}
	return strings.Cut(place, "/")
}

func (n *Node) checkSecretRef() error {
	if strings.HasPrefix(n.SecretRef, secretOnSSM) {
		region, name, ok := n.SecretParameter()
		if !ok || !isLabel(region) || len(name) < 2 || len(name) > maxParameter || !only(name, "_.-/") {
			return fmt.Errorf("secret_ref %q: want ssm:REGION/NAME, such as ssm:eu-west-1/boxer/shop/secret", n.SecretRef)
		}
		return nil
	}
	if byToken := n.Kind == KindClient && n.SecretRef == SecretToken; !strings.HasPrefix(n.SecretRef, "file:") && !byToken {
		return fmt.Errorf("secret_ref %q: want file:/path of a file with mode 0600, or ssm:REGION/NAME", n.SecretRef)
	}
	return nil
}

func (n *Node) checkInvoke() error {
	if n.Invoke == "" {
		return nil
	}
	if path, isPath := strings.CutPrefix(n.Invoke, "unix:"); isPath && strings.HasPrefix(path, "/") {
		return nil
	}
	if region, prefix, ok := n.InvokeLambda(); ok && isLabel(region) && len(prefix) < maxFunction && only(prefix, "_-") {
		return nil
	}
	return fmt.Errorf("invoke %q: want unix:/path, or lambda:REGION/PREFIX", n.Invoke)
}

func (n *Node) checkPublicAddress() error {
	switch {
	case n.PublicAddress == "":
		return nil
	case n.Kind != KindVM && n.Kind != KindSeed && n.Kind != KindContainer:
		return fmt.Errorf("public_address: a %s is dialled by nobody", n.Kind)
	case n.PublicAddress == PublicEC2, n.PublicAddress == PublicNone:
		return nil
	}
	if a, err := netip.ParseAddr(n.PublicAddress); err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("public_address %q: want an IPv4 address, ec2 or none", n.PublicAddress)
	}
	return nil
}

// only letters, digits and these.
func only(s, others string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	}) < 0
}
