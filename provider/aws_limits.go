// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"archive/zip"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	attribute "github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/boxer-overlay/boxer/provider/cloud"
	"github.com/boxer-overlay/boxer/runtime/config"
	"github.com/boxer-overlay/boxer/runtime/launch"
)

const (
	maxEvent  = 1 << 20 // of an asynchronous invocation, in bytes
	taskDir   = "/var/task"
	layerSize = 24 << 20 // that Boxer's layer unpacks to, at most (TestLayerSize)
)

// reservedVariables are set by Lambda itself in every function.
var reservedVariables = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_REGION",
	"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT",
}

// checkReserved refuses a variable that Lambda sets.
func checkReserved(name string) error {
	if slices.Contains(reservedVariables, name) || strings.HasPrefix(name, "AWS_LAMBDA_") {
		return fmt.Errorf("variable %q is reserved: Lambda sets it in every function, and the supervisor needs the one that it sets; leave it out, or "+
			"choose another name", name)
	}
	return nil
}

var (
	listening  = regexp.MustCompile(`^--(port|listen|bind|http-port|listen-port)(=|$)`)
	portOption = regexp.MustCompile(`^--?(port|listen|bind|p|P|http-port|listen-port)$`)
	portValue  = regexp.MustCompile(`^(?:--?[a-z-]*(?:port|listen|bind)[a-z-]*=)?(?:(?:\[[0-9a-fA-F:]*\]|[0-9]+(?:\.[0-9]+){3}|\*|localhost)?:)?([0-9]{1,5})$`)
)

// portGuess is a port that a command seems to listen on.
type portGuess struct {
	port  int
	plain bool // an option's name says so; else it may be another host's
}

// portsOf are the ports that a command seems to listen on: what follows --port,
// -p, --listen or --bind, or is written :PORT.
func portsOf(argv []string) []portGuess {
	var ports []portGuess
	for i, arg := range argv[min(1, len(argv)):] {
		match := portValue.FindStringSubmatch(arg)
		if match == nil || !strings.ContainsAny(arg, ":=") && !portOption.MatchString(argv[i]) {
			continue
		}
		if port, err := strconv.Atoi(match[1]); err == nil && port > 0 && port <= 65535 {
			ports = append(ports, portGuess{port, listening.MatchString(arg) || listening.MatchString(argv[i]) && !strings.Contains(argv[i], "=")})
		}
	}
	return ports
}

// checkPort says why no guest of a function can listen on a port.
func checkPort(port int) error {
	switch {
	case port < 1024:
		return fmt.Errorf("functions may not listen on ports below 1024, and the command seems to want %d: choose a higher one", port)
	case port == 9001 || port == 3000:
		return fmt.Errorf("port %d is kept by Lambda for itself, and the command seems to want it: choose another one", port)
	}
	return nil
}

// eventSize is how many bytes the launch event of one replica has.
func eventSize(spec nodeSpec) (int, error) {
	n, err := spec.node(launch.Want{Slot: spec.Name + "-999", Token: strings.Repeat("0", 32)})
	if err != nil {
		return 0, err
	}
	placeholders(&n)
	data, err := json.Marshal(n)
	return len(data), err
}

// placeholders are as long as what is known only when the network is there.
func placeholders(n *config.Node) {
	n.SecretRef = "ssm:ap-southeast-1/boxer/" + n.Network + "/secret"
	n.SeedEndpoints = []string{"203.0.113.101:7717", "203.0.113.102:7717", "203.0.113.103:7717"}
	n.Site = "vpc-0123456789abcdef0/sg-0fedcba9876543210"
}

// checkEvent refuses a launch event that Lambda would.
func checkEvent(spec nodeSpec) error {
	size, err := eventSize(spec)
	if err == nil && size > maxEvent {
		err = fmt.Errorf("command, environment and files make a launch event of %d bytes, and Lambda takes %d: put large values into files of source_dir or package",
			size, maxEvent)
	}
	return err
}

// checkFunctionOnAWS refuses at plan what Lambda would refuse at apply, or let fail
// when it runs. What is not known yet passes.
func (m *functionNodeModel) checkFunctionOnAWS(ctx context.Context, diags *diag.Diagnostics) {
	checkNodeTags(m.TagsAll, cloud.MaxFunctionTags, diags)
	for name := range m.Environment.Elements() {
		if err := checkReserved(name); err != nil {
			diags.AddAttributeError(attribute.Root("environment").AtMapKey(name), "Reserved variable", sentence(err.Error()))
		}
	}
	for name := range m.Files.Elements() {
		if !strings.HasPrefix(name, "/tmp/") {
			diags.AddAttributeError(attribute.Root("files").AtMapKey(name), "File in a place that functions cannot write",
				fmt.Sprintf("On a function only /tmp can be written, and %s is elsewhere: choose a place below /tmp, or put the file into source_dir or package, "+
					"which are in /var/task.", name))
		}
	}
	if reserved := m.Reserved; !known(reserved, m.DesiredCount) || reserved.IsNull() {
	} else if count := m.DesiredCount.ValueInt64(); reserved.ValueInt64() < count {
		diags.AddAttributeError(attribute.Root("reserved_concurrency"), "Fewer invocations than replicas",
			fmt.Sprintf("Each replica is one invocation, and desired_count is %d: give it more than that, since a renewal needs another one.", count))
	}
	var ignored diag.Diagnostics // an element that is not known yet
	spec := m.spec(ctx, &ignored)
	if ignored.HasError() || len(spec.Command) == 0 {
		return
	}
	// The prefix is the network's, which may not be there yet: one letter at least.
	if err := (&cloud.Network{Name: spec.Network, Prefix: "b"}).CheckFunctionName(spec.Name); err != nil && spec.Network != "" {
		diags.AddAttributeError(attribute.Root("name"), "Name too long for AWS", sentence(err.Error()))
	}
	for _, guess := range portsOf(spec.Command) {
		err := checkPort(guess.port)
		switch {
		case err != nil && guess.plain:
			diags.AddAttributeError(attribute.Root("command"), "Port that functions cannot have",
				sentence(err.Error())+" (If it is another host's, have a script in the package say it.)")
		case err != nil:
			diags.AddAttributeWarning(attribute.Root("command"), "Port that functions cannot have", sentence(err.Error()))
		}
	}
	if err := checkEvent(spec); err != nil {
		diags.AddAttributeError(attribute.Root("environment"), "Launch event too large", sentence(err.Error()))
	}
	if m.ImageURI.IsNull() {
		m.checkCode(spec, diags)
	}
}

// checkCode looks at the package itself.
func (m *nodeModel) checkCode(spec nodeSpec, diags *diag.Diagnostics) {
	at, name := m.source()
	if name.IsUnknown() {
		return
	}
	function := spec.Kind == config.KindFunction
	if _, remote, err := parseS3(m.Package.ValueString()); remote {
		switch {
		case err != nil:
			diags.AddAttributeError(at, "Invalid package", sentence(err.Error()))
		case !function:
			diags.AddAttributeError(at, "Package in S3",
				"Only functions take a package from S3: name a zip file or a source_dir, or fetch it with user_data.")
		}
		return
	}
	if !name.IsNull() {
		if _, err := contentHash(at, name.ValueString()); err != nil {
			return // said already
		}
		if err := checkCodeSize(spec, layerSize); err != nil {
			diags.AddAttributeError(at, "Package too large", sentence(strings.TrimPrefix(err.Error(), "pack the function: ")))
			return
		}
	}
	if _, err := readCode(spec, "bootstrap"); function && err == nil {
		diags.AddAttributeError(at, "Package with a bootstrap of its own",
			"It has a file named bootstrap, which Lambda runs instead of Boxer's: no replica would join. Give it another name, and say that in command, as in "+
				"/var/task/server.")
		return
	}
	inside, found := commandInCode(spec)
	switch {
	case inside != nil:
		if err := checkELF(spec.Command[0], inside, spec.AWS.architecture()); err != nil {
			diags.AddAttributeError(attribute.Root("command"), "Program of another architecture", sentence(err.Error()))
		}
	case !found && function:
		diags.AddAttributeWarning(attribute.Root("command"), "Command not in the package",
			fmt.Sprintf("%q is neither in the package nor part of Lambda's Amazon Linux, as far as can be told here: the replicas will end at once if it is not there. "+
				"Pack it (boxer pack), name it as /var/task/..., or use image_uri.", spec.Command[0]))
	case !found && spec.AWS.ImageID == "" && spec.AWS.UserData == "":
		diags.AddAttributeWarning(attribute.Root("command"), "Command not in the package",
			fmt.Sprintf("%q is neither in the package nor part of Amazon Linux 2023, as far as can be told here: pack it, have user_data install it, or choose an image_id "+
				"that has it.", spec.Command[0]))
	}
}

// systemCommands are in Amazon Linux 2023, also in the small one of Lambda.
var systemCommands = []string{
	"sh", "bash", "cat", "cp", "cut", "date", "echo", "env", "false", "head", "id", "ln", "ls", "mkdir", "mv", "printf", "rm", "sleep", "sort", "tail",
	"tee", "test", "touch", "tr", "true", "uname", "wc", "grep", "sed", "curl",
}

// commandInCode returns the beginning of the program that a node's command names if
// it is in what is packed. found: it is there, or known to be elsewhere.
func commandInCode(spec nodeSpec) (inside io.ReaderAt, found bool) {
	program := spec.Command[0]
	dir := spec.WorkingDir
	if dir == "" && spec.Kind == config.KindFunction {
		dir = taskDir
	}
	if !strings.Contains(program, "/") {
		return nil, slices.Contains(systemCommands, program) || slices.Contains(strings.Split(spec.Environment["PATH"], ":"), taskDir)
	}
	if !path.IsAbs(program) {
		program = path.Join(dir, program)
	}
	relative, ok := strings.CutPrefix(path.Clean(program), taskDir+"/")
	if !ok {
		return nil, slices.Contains(systemCommands, path.Base(program)) || strings.HasPrefix(program, "/opt/") || strings.HasPrefix(program, "/tmp/")
	}
	inside, err := readCode(spec, relative)
	if err != nil {
		return nil, false
	}
	return inside, true
}

// elfHeader is more than an ELF header has.
const elfHeader = 64

// readCode is the beginning of one file of what is packed.
func readCode(spec nodeSpec, relative string) (io.ReaderAt, error) {
	var data []byte
	read := func(from io.Reader) (err error) {
		data, err = io.ReadAll(io.LimitReader(from, elfHeader))
		return err
	}
	switch {
	case spec.Package != "":
		err := withPackage(spec.Package, func(files map[string]*zip.File) error {
			file := files[relative]
			if file == nil {
				return os.ErrNotExist
			}
			in, err := file.Open()
			if err != nil {
				return err
			}
			defer in.Close()
			return read(in)
		})
		return bytes.NewReader(data), err
	case spec.SourceDir != "":
		file, err := os.Open(filepath.Join(spec.SourceDir, filepath.FromSlash(relative)))
		if err != nil {
			return nil, err
		}
		defer file.Close()
		err = read(file)
		return bytes.NewReader(data), err
	}
	return nil, os.ErrNotExist
}

// checkELF refuses a program for other processors. What is no ELF file is a script.
func checkELF(name string, program io.ReaderAt, arch string) error {
	var head [elfHeader]byte
	if n, _ := program.ReadAt(head[:], 0); n < 20 || string(head[:4]) != elf.ELFMAG {
		return nil
	}
	machine := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if head[elf.EI_DATA] == byte(elf.ELFDATA2MSB) {
		machine = elf.Machine(uint16(head[19]) | uint16(head[18])<<8)
	}
	want := map[string]elf.Machine{archX86: elf.EM_X86_64, archARM: elf.EM_AARCH64}[arch]
	if machine == want {
		return nil
	}
	made := map[elf.Machine]string{elf.EM_X86_64: archX86, elf.EM_AARCH64: archARM, elf.EM_386: "32-bit x86"}[machine]
	if made == "" {
		made = machine.String()
	}
	return fmt.Errorf("%s is a program for %s, and the node's architecture is %s: set architecture = %q if all that it loads is of that kind, or build it for %s",
		name, made, arch, made, arch)
}

// onlyLocalPackage refuses a package in a bucket where nobody fetches it.
func (m *nodeModel) onlyLocalPackage(diags *diag.Diagnostics) {
	if strings.HasPrefix(m.Package.ValueString(), s3Scheme) {
		diags.AddAttributeError(attribute.Root("package"), "Package in S3",
			"Only functions on AWS take a package from S3: name a zip file, or a directory with source_dir.")
	}
}
