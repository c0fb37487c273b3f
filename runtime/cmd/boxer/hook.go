// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/controller"
	"github.com/boxer-overlay/boxer/runtime/hook"
	"github.com/boxer-overlay/boxer/runtime/launch"
	"github.com/boxer-overlay/boxer/runtime/localcloud"
)

func hookCommand(g *globals) *cobra.Command {
	var address, tokenFile string
	cmd := &cobra.Command{
		Use:   "hook",
		Short: "Let other programs scale function nodes over HTTP, until interrupted",
		Long: `Serve an HTTP interface on this machine, for autoscalers and scripts:

  GET /v1/functions/NAME                 its range, replicas and load
  PUT /v1/functions/NAME {"count": N}    as boxer scale NAME N, without waiting

Requests bear the token of the file that is named: Authorization: Bearer TOKEN. The
file is made where there is none. Answers are JSON; errors are {"error": "why"},
with status 404 for a node that nobody keeps and 422 for a number outside its range.`,
		Example: `  boxer hook --listen 127.0.0.1:8090
  auth="Authorization: Bearer $(cat TOKEN-FILE)"
  curl -H "$auth" -X PUT -d '{"count": 5}' 127.0.0.1:8090/v1/functions/logic`,
		Args: exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			store, info, err := g.find()
			if err == nil {
				err = checkAlive(info)
			}
			if err != nil {
				return err
			}
			if tokenFile == "" {
				tokenFile = filepath.Join(info.Directory, "hook-token")
			}
			token, err := hook.Token(tokenFile)
			if err != nil {
				return err
			}
			l, err := hook.Listen(c.Context(), address)
			if err != nil {
				return err
			}
			defer l.Close()
			url := fmt.Sprintf("http://%s", l.Addr())
			if g.json {
				err = printJSON(c.OutOrStdout(), map[string]string{"url": url, "token_file": tokenFile})
			} else {
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s, token in %s\n", url, tokenFile)
			}
			if err != nil {
				return fmt.Errorf("print the address of the hook: %w", err)
			}
			return hook.Serve(c.Context(), l, token, hooked{store, info.Name})
		},
	}
	cmd.Flags().StringVar(&address, "listen", "127.0.0.1:0", "where to serve: a loopback address; port 0: any free one")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file of the token, mode 0600 (default: hook-token in the network's directory)")
	return cmd
}

// hooked is a network as the hook sees it.
type hooked struct {
	store   *localcloud.Store
	network string
}

func (h hooked) View(ctx context.Context, name string) (v controller.View, err error) {
	info, err := h.info()
	if err == nil {
		err = launch.Control(ctx, info, controller.MethodView, controller.Order{Name: name}, &v)
	}
	return v, err
}

func (h hooked) Scale(ctx context.Context, name string, count int) (controller.View, error) {
	info, err := h.info()
	if err != nil {
		return controller.View{}, err
	}
	client, err := h.store.Connect(ctx, info.Name)
	if err != nil {
		return controller.View{}, err
	}
	defer client.Close()
	r, err := (&launch.Launcher{Network: info, Client: client}).Scale(ctx, name, count, "hook")
	return r.View, err
}

func (h hooked) info() (localcloud.NetworkInfo, error) {
	info, err := h.store.Network(h.network)
	if err == nil {
		err = checkAlive(info)
	}
	return info, err
}
