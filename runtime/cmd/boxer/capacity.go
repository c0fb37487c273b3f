// SPDX-License-Identifier: Apache-2.0

//go:build cli

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/boxer-overlay/boxer/runtime/capacity"
)

func planCapacityCommand(g *globals) *cobra.Command {
	vm, function := capacity.DefaultVM(), capacity.DefaultFunction()
	var svg string
	var fillGaps bool
	cmd := &cobra.Command{
		Use:   "plan-capacity TRACE.csv",
		Short: "Find how much of a load VMs should serve, and functions the rest",
		Long: `Find the cheapest split of a load: VMs that serve a baseline all the time, functions
what exceeds it; and what that saves against VMs alone, for the peak (P100) or for
the load that 99, 95 or 90 % of the seconds do not exceed. NEED is how many times as
much a request may need of functions as of VMs.

The trace has a line "second,requests" for each second, in order; it may be packed
with gzip, and - is standard input. 'boxer plan-capacity convert' makes one of logs.

The cost is that of the paper (section 2.2). Prices are AWS's lists for us-east-2 in
November 2026, of c6g.2xlarge on demand and of arm64 functions; a function of 2 GB
serves what a core of the VM does. Not counted are invocations, traffic, storage and
addresses.`,
		Example: `  boxer plan-capacity trace.csv --svg plan.svg
  boxer plan-capacity trace.csv --vm-price 0.096 --vm-cores 2 --vm-throughput 250
  boxer plan-capacity trace.csv --json | jq '.splits[0].vm_requests_per_second'
  boxer plan-capacity convert --from clf access.log.gz | boxer plan-capacity -`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return interruptible(c.Context(), func() error {
				trace, err := readTrace(args[0], func(r io.Reader) (capacity.Trace, error) { return capacity.Read(r, fillGaps) })
				if err != nil {
					return err
				}
				plan, err := capacity.New(trace, vm, function)
				if err != nil {
					return fmt.Errorf("plan capacity for %s: %w", args[0], err)
				}
				if svg != "" {
					if err := os.WriteFile(svg, []byte(plan.SVG()), 0o644); err != nil {
						return fmt.Errorf("write the figure: %w: give --svg a file that can be written", err)
					}
				}
				return g.print(c.OutOrStdout(), viewPlan(plan))
			})
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&vm.PricePerHour, "vm-price", vm.PricePerHour, "US dollars for an hour of a VM")
	flags.Float64Var(&vm.Cores, "vm-cores", vm.Cores, "cores of that VM")
	flags.Float64Var(&vm.RequestsPerSecond, "vm-throughput", vm.RequestsPerSecond, "requests/s that one of its cores serves")
	flags.Float64Var(&function.PricePerGBSecond, "function-price", function.PricePerGBSecond, "US dollars for a second of a function with 1 GB")
	flags.Float64Var(&function.MemoryGB, "function-memory", function.MemoryGB, "GB of memory of a function")
	flags.Float64Var(&function.RequestsPerSecond, "function-throughput", function.RequestsPerSecond, "requests/s that one function serves")
	flags.BoolVar(&fillGaps, "fill-gaps", false, "take seconds that are missing in the trace for seconds without requests")
	flags.StringVar(&svg, "svg", "", "draw cost and load into this file")
	cmd.AddCommand(convertCommand())
	return cmd
}

func convertCommand() *cobra.Command {
	var from string
	formats := map[string]func(io.Reader) (*capacity.Converted, error){"clf": capacity.FromCLF, "counts": capacity.FromCounts}
	cmd := &cobra.Command{
		Use:   "convert --from clf|counts FILE",
		Short: "Make a trace of a web server's log, or of counted requests",
		Long: `Print a trace for 'boxer plan-capacity': the requests of each second, from the first
to the last that is found. FILE may be packed with gzip; - is standard input.

    clf     a log in the common or the combined log format, as of Apache, nginx and
            the NASA-HTTP logs of 1995: every line is a request
    counts  lines with the requests of one second after the other, or lines with a
            second (a whole number, such as Unix time) and requests, in any order;
            what is there of a second is added up`,
		Example: `  boxer plan-capacity convert --from clf access.log.gz > trace.csv
  boxer plan-capacity convert --from counts requests.txt > trace.csv`,
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			convert, known := formats[from]
			if !known {
				return fmt.Errorf("convert %s: --from %q: want clf or counts", args[0], from)
			}
			return interruptible(c.Context(), func() error {
				found, err := readTrace(args[0], convert)
				if err != nil {
					return err
				}
				if err := found.Trace.Write(c.OutOrStdout()); err != nil {
					return fmt.Errorf("write the trace: %w; free some space, or write it elsewhere", err)
				}
				fmt.Fprintln(os.Stderr, "boxer: "+describeTrace(found))
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "what FILE is: clf or counts")
	completeFlags(cmd, map[string]completer{"from": words("clf", "counts")})
	return cmd
}

// interruptible runs fn, which may wait for a pipe, until ctx ends.
func interruptible(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// readTrace has read make something of a file, or of standard input.
func readTrace[T any](name string, read func(io.Reader) (T, error)) (made T, err error) {
	file := os.Stdin
	if name != "-" {
		if file, err = os.Open(name); err != nil {
			return made, fmt.Errorf("read the trace: %w: give a file that is there and readable", err)
		}
		defer file.Close()
	} else {
		name = "standard input"
	}
	if made, err = read(file); err != nil {
		err = fmt.Errorf("read %s: %w", name, err)
	}
	return made, err
}

func describeTrace(c *capacity.Converted) string {
	requests := 0.0
	for _, n := range c.Trace {
		requests += n
	}
	text := fmt.Sprintf("%.0f requests in %s", requests, counted(len(c.Trace), "second"))
	if c.Start != 0 {
		text += ", the first at " + time.Unix(c.Start, 0).UTC().Format(time.RFC3339)
	}
	if c.LeftOut > 0 {
		text += "; left out " + counted(c.LeftOut, "line") + " without a time"
	}
	if c.Silence >= 3600 {
		text += fmt.Sprintf("; no request at all for %d seconds: if the log is incomplete there, cut it", c.Silence)
	}
	return text
}

func viewPlan(p *capacity.Plan) view {
	v := view{data: p, table: table{columns: []column{
		{title: "NEED", fixed: true}, {title: "BASELINE", fixed: true}, {title: "SECONDS", fixed: true, optional: true},
		{title: "REQUESTS", fixed: true, optional: true}, {title: "VM CORES", fixed: true}, {title: "FUNCTIONS", fixed: true},
		{title: "COST/HOUR", fixed: true}, {title: "P100", fixed: true}, {title: "P99", fixed: true}, {title: "P95", fixed: true}, {title: "P90", fixed: true},
	}}}
	for _, s := range p.Splits {
		row := []string{
			fmt.Sprintf("%gx", s.FunctionRequirement), number(s.VMRequestsPerSecond) + "/s", percent(s.SecondsShare), percent(s.RequestsShare),
			number(s.VMCores), strconv.Itoa(s.Functions), "$" + number(s.CostPerHour),
		}
		for _, against := range []string{"p100", "p99", "p95", "p90"} {
			word := "none"
			if saving := s.Savings[against]; saving != nil && *saving > 0 {
				word = percent(*saving)
			}
			row = append(row, word)
		}
		v.table.rows = append(v.table.rows, row)
	}
	v.note = fmt.Sprintf("Load: %s, %s requests/s on average, %s at most.\n", counted(p.Seconds, "second"), number(p.Mean), number(p.Peak)) +
		"VMs serve up to BASELINE, which is enough in so many of the SECONDS and for so many of\n" +
		"the REQUESTS; functions, up to FUNCTIONS at once, the rest. P100 to P90: what that saves\n" +
		"against VMs alone for the peak, or for the load of so many percent of the seconds:\n"
	for i, alone := range p.Provisioning {
		if i > 0 {
			v.note += ", "
		}
		v.note += fmt.Sprintf("P%g %s/s for $%s", alone.Percentile, number(alone.RequestsPerSecond), number(alone.CostPerHour))
	}
	v.note += "."
	return v
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

// number with four digits that matter, without an exponent where people can do without.
func number(x float64) string {
	if x >= 1000 {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}
