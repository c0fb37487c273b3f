// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

const (
	// PartNode is the record of a node.
	PartNode = "node"

	maxPieces     = 100 // of a record, and far more than a launch event needs
	maxNodeRecord = 4 << 20
	askedAtOnce   = 10 // parameters in one request
)

// nodePiece is the parameter that holds a part of the record of a node.
func nodePiece(network, node string, piece int) string {
	return fmt.Sprintf("/boxer/%s/nodes/%s/%d", network, node, piece)
}

// PutNode keeps the record of a node: what it was told to be, for whoever reads or
// imports it later. It is compressed, cut to the size of parameters, and encrypted,
// since users may put words into an environment that not everybody should read.
func (c *Client) PutNode(ctx context.Context, network, node string, record []byte, tags map[string]string) error {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := z.Write(record); err == nil {
		_ = z.Close()
	}
	text := base64.StdEncoding.EncodeToString(packed.Bytes())
	sum := sha256.Sum256(packed.Bytes())
	const room = maxRecord - 24
	pieces := slices.Collect(slices.Chunk([]byte(text), room))
	if len(pieces) > maxPieces {
		return failed("writing the record of node", node, fmt.Errorf("it has %d bytes when compressed, and %d is the most", packed.Len(), maxPieces*room*3/4))
	}
	for i, piece := range slices.Backward(pieces) { // the first one last: it says how many there are
		name := nodePiece(network, node, i)
		value := fmt.Sprintf("%d %s %s", len(pieces), hex.EncodeToString(sum[:6]), piece)
		out, err := c.SSM.PutParameter(ctx, &ssm.PutParameterInput{
			Name: aws.String(name), Type: types.ParameterTypeSecureString, Value: aws.String(value), Overwrite: aws.Bool(true),
			Description: aws.String("Record of node " + node + " of the Boxer network " + network),
		})
		if err != nil {
			return failed("writing the record of node", node, err)
		}
		if err := c.tagPiece(ctx, name, out.Version == 1, Tags(network, node, PartNode, tags)); err != nil {
			return err
		}
	}
	return c.deletePieces(ctx, network, node, len(pieces))
}

// tagPiece tags a parameter: one that was there already may have other tags.
func (c *Client) tagPiece(ctx context.Context, name string, fresh bool, want map[string]string) error {
	has := map[string]string{}
	if !fresh {
		var err error
		if has, err = c.parameterTags(ctx, name); err != nil {
			return err
		}
	}
	for _, s := range c.retagParameter(name, has, want) {
		if err := s.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Node reads the record of a node and the user's tags. ErrNotFound: there is none, or
// not a whole one.
func (c *Client) Node(ctx context.Context, network, node string) (record []byte, tags map[string]string, err error) {
	first, err := c.pieces(ctx, network, node, 0, 1)
	if err != nil {
		return nil, nil, err
	}
	head := first[nodePiece(network, node, 0)]
	count, sum, payload, ok := cutPiece(head)
	if head == "" || !ok {
		return nil, nil, &Error{Doing: "reading the record of node", On: node, Err: ErrNotFound}
	}
	rest, err := c.pieces(ctx, network, node, 1, count)
	if err != nil {
		return nil, nil, err
	}
	text := payload
	for i := 1; i < count; i++ {
		_, same, payload, ok := cutPiece(rest[nodePiece(network, node, i)])
		if !ok || same != sum {
			return nil, nil, &Error{Doing: "reading the record of node", On: node, Err: ErrNotFound}
		}
		text += payload
	}
	record, err = unpackRecord(text, sum)
	if err != nil {
		return nil, nil, &Error{Doing: "reading the record of node", On: node, Err: err,
			Remedy: "Somebody changed SSM parameter " + nodePiece(network, node, 0) + ": its history in the console has the right one."}
	}
	found, err := c.parameterTags(ctx, nodePiece(network, node, 0))
	return record, UserTags(found), err
}

func cutPiece(value string) (count int, sum, payload string, ok bool) {
	number, rest, _ := strings.Cut(value, " ")
	sum, payload, ok = strings.Cut(rest, " ")
	count, err := strconv.Atoi(number)
	return count, sum, payload, ok && err == nil && count > 0 && count <= maxPieces
}

func unpackRecord(text, sum string) ([]byte, error) {
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if found := sha256.Sum256(packed); hex.EncodeToString(found[:6]) != sum {
		return nil, errors.New("its checksum is wrong")
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxNodeRecord))
}

// pieces reads those from one up to, but not including, another. Those that are not
// there are left out.
func (c *Client) pieces(ctx context.Context, network, node string, from, to int) (map[string]string, error) {
	found := map[string]string{}
	for ; from < to; from += askedAtOnce {
		in := &ssm.GetParametersInput{WithDecryption: aws.Bool(true)}
		for i := from; i < min(to, from+askedAtOnce); i++ {
			in.Names = append(in.Names, nodePiece(network, node, i))
		}
		out, err := c.SSM.GetParameters(ctx, in)
		if err != nil {
			return nil, failed("reading the record of node", node, err)
		}
		for _, p := range out.Parameters {
			found[aws.ToString(p.Name)] = aws.ToString(p.Value)
		}
	}
	return found, nil
}

// DeleteNode removes the record of a node.
func (c *Client) DeleteNode(ctx context.Context, network, node string) error {
	return c.deletePieces(ctx, network, node, 0)
}

// deletePieces removes those from one on. There are none beyond ten that are missing.
func (c *Client) deletePieces(ctx context.Context, network, node string, from int) error {
	for ; from < maxPieces; from += askedAtOnce {
		found, err := c.pieces(ctx, network, node, from, from+askedAtOnce)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		if _, err := c.SSM.DeleteParameters(ctx, &ssm.DeleteParametersInput{Names: slices.Sorted(maps.Keys(found))}); err != nil {
			return failed("removing the record of node", node, err)
		}
	}
	return nil
}

// deleteNodes removes what is left of nodes that went without Terraform: their records,
// their logs, and the contents of VM nodes.
func (c *Client) deleteNodes(ctx context.Context, n *Network) error {
	prefix := "/boxer/" + n.Name + "/nodes/"
	pages := ssm.NewGetParametersByPathPaginator(c.SSM, &ssm.GetParametersByPathInput{Path: aws.String(prefix), Recursive: aws.Bool(true)})
	left := map[string]bool{}
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return failed("looking for the records of nodes in", prefix, err)
		}
		for _, p := range page.Parameters {
			node, _, _ := strings.Cut(strings.TrimPrefix(aws.ToString(p.Name), prefix), "/")
			left[node] = true
		}
	}
	for _, node := range slices.Sorted(maps.Keys(left)) {
		if err := c.DeleteLogGroup(ctx, n.LogGroup(node)); err != nil {
			return err
		}
		if err := c.DeleteContents(ctx, n, node, ""); err != nil {
			return err
		}
		if err := c.DeleteNode(ctx, n.Name, node); err != nil {
			return err
		}
	}
	return nil
}
