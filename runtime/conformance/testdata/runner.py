# SPDX-License-Identifier: Apache-2.0
"""Runs modules of CPython's test package and prints one JSON line per test.

    runner.py [--host ADDRESS] [--exclude FILE] [--only FILE] [--limit SECONDS] MODULE...

--exclude and --only name files of patterns of test ids, one a line.

Both sides of the comparison, bare and under Boxer, run this very file. The test
host is ADDRESS (overlay: this node's own, underlay: the address of its host)
instead of loopback; what that changes is in rehost(). Each module runs in a
process of its own. A test that takes longer than the limit, or that ends the
process, is reported as such, and the rest of the module goes on in a new process.
"""
import argparse
import ast
import fnmatch
import importlib.abc
import importlib.machinery
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

LOOPBACK = "127.0.0.1"
# Datagram sockets are no business of an overlay for streams: they stay on loopback.
DATAGRAM = ("udp", "datagram")


def is_datagram(name):
    return any(word in name.lower() for word in DATAGRAM)


class Rehost(ast.NodeTransformer):
    """Puts the test host where tests write loopback out: 127.0.0.1 in any string,
    and 'localhost' as the host of an address. What certificates prove stays."""

    def __init__(self, host):
        self.host = host

    def visit_Constant(self, node):
        if isinstance(node.value, str) and LOOPBACK in node.value:
            return ast.copy_location(ast.Constant(node.value.replace(LOOPBACK, self.host)), node)
        return node

    def visit_keyword(self, node):
        return node if node.arg == "server_hostname" else self.generic_visit(node)

    def visit_Tuple(self, node):
        first = node.elts[0] if node.elts else None
        if isinstance(first, ast.Constant) and isinstance(node.ctx, ast.Load):
            if first.value == "IP Address":  # of a certificate
                return node
            if first.value == "localhost" and len(node.elts) == 2:
                node.elts[0] = ast.copy_location(ast.Constant(self.host), first)
        return self.generic_visit(node)

    def visit_ClassDef(self, node):
        return node if is_datagram(node.name) else self.generic_visit(node)

    def visit_FunctionDef(self, node):
        return node if is_datagram(node.name) else self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef


class RehostingLoader(importlib.machinery.SourceFileLoader):
    host = None

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)  # no cached bytecode

    def source_to_code(self, data, path, **_):
        tree = Rehost(self.host).visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class RehostingFinder(importlib.abc.MetaPathFinder):
    """Finds the test modules themselves, not test.support."""

    def find_spec(self, fullname, path, target=None):
        if not fullname.startswith("test.") or fullname.startswith("test.support"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and type(spec.loader) is importlib.machinery.SourceFileLoader:
            spec.loader = RehostingLoader(fullname, spec.loader.path)
        return spec


def rehost(host):
    """Makes host the address that the suites use as their own."""
    from test.support import socket_helper
    import multiprocessing.connection as connection

    if host == LOOPBACK:
        return
    socket_helper.HOST = socket_helper.HOSTv4 = host
    socket_helper.bind_port.__defaults__ = (host,)
    arbitrary = connection.arbitrary_address
    connection.arbitrary_address = lambda family: (
        (host, 0) if family == "AF_INET" else arbitrary(family))
    RehostingLoader.host = host
    sys.meta_path.insert(0, RehostingFinder())


def find_host(word):
    if word == "overlay":
        return os.environ["BOXER_NODE_ADDRESS"]
    if word == "underlay":  # what the kernel would call the node towards others
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("192.0.2.1", 9))
            return s.getsockname()[0]
    return word


# ---- the process that runs a module's tests ----


def each(suite):
    for test in suite:
        if hasattr(test, "__iter__"):
            yield from each(test)
        else:
            yield test


def run_tests(job, report_fd):
    import faulthandler
    import unittest

    faulthandler.enable()
    me = os.getpid()

    def send(**event):
        if os.getpid() == me:  # tests fork
            os.write(report_fd, json.dumps(event).encode() + b"\n")

    class Reporter(unittest.TestResult):
        running = None

        def startTest(self, test):
            super().startTest(test)
            self.running, self.outcome, self.message = test, "ok", ""
            send(event="start", id=test.id())

        def stopTest(self, test):
            super().stopTest(test)
            self.running = None
            send(event="end", id=test.id(), outcome=self.outcome, message=self.message)

        def note(self, test, outcome, message):
            if self.running is None:  # setUpClass or setUpModule
                send(event="end", id=test.id(), outcome=outcome, message=message)
            elif self.outcome not in ("error", "fail"):
                self.outcome, self.message = outcome, message

        def note_error(self, test, outcome, err):
            self.note(test, outcome, self._exc_info_to_string(err, test)[-3000:])

        def addError(self, test, err):
            self.note_error(test, "error", err)

        def addFailure(self, test, err):
            self.note_error(test, "fail", err)

        def addSubTest(self, test, subtest, err):
            if err is not None:
                self.note(test, "fail", str(subtest) + "\n" + self._exc_info_to_string(err, test)[-3000:])

        def addSkip(self, test, reason):
            self.note(test, "skip", reason)

        def addExpectedFailure(self, test, err):
            self.note(test, "xfail", "")

        def addUnexpectedSuccess(self, test):
            self.note(test, "fail", "unexpected success")

    from test import support

    support.verbose = 0
    support.use_resources = ["cpu", "walltime", "subprocess"]  # not network: there is none
    if job["module"] == "test_socketserver":
        support.use_resources.append("network")  # it asks for it and uses its own host only
    rehost(job["host"])
    wanted, done = job["only"], set(job["done"])
    suite, ids, excluded = unittest.TestSuite(), [], {}
    for test in each(unittest.defaultTestLoader.loadTestsFromName("test." + job["module"])):
        name = test.id()
        if wanted and not any(fnmatch.fnmatchcase(name, p) for p in wanted):
            continue
        matching = [p for p in job["exclude"] if fnmatch.fnmatchcase(name, p)]
        if matching:
            excluded[name] = matching[0]
            continue
        ids.append(name)
        if name not in done:
            suite.addTest(test)
    send(event="list", ids=ids, excluded=excluded)
    suite.run(Reporter())
    send(event="over")


# ---- the process that watches it ----


class Watch:
    def __init__(self, args, module, exclude, only):
        self.job = {"module": module, "host": args.host, "exclude": exclude, "only": only, "done": []}
        self.limit = args.limit
        self.log = tempfile.TemporaryFile()
        self.ids, self.excluded = [], {}

    def report(self, name, outcome, message="", seconds=0.0):
        self.job["done"].append(name)
        line = {"id": name, "outcome": outcome, "seconds": round(seconds, 3)}
        if message and outcome != "ok":
            line["message"] = message
        print(json.dumps(line), flush=True)

    def run(self):
        began = time.monotonic()
        while not self.run_once():  # each time at least one test is done
            pass
        done = set(self.job["done"])
        for name in self.ids:
            if name not in done:
                self.report(name, "missing", "its class or module did not get that far")
        for name, pattern in self.excluded.items():
            print(json.dumps({"id": name, "outcome": "excluded", "message": pattern}))
        seconds = round(time.monotonic() - began, 1)
        print(json.dumps({"module": self.job["module"], "seconds": seconds}), flush=True)

    def run_once(self):
        """True when the module has come to its end."""
        read, write = os.pipe()
        place = tempfile.mkdtemp(prefix="conf")
        child = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--child", str(write), json.dumps({**self.job, "done": []})],
            stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, cwd=place,
            pass_fds=(write,), start_new_session=True)
        os.close(write)
        child.stdin.write(json.dumps(self.job["done"]).encode())
        child.stdin.close()
        try:
            return self.follow(child, read)
        finally:
            os.close(read)
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
            subprocess.run(["rm", "-rf", place], stderr=subprocess.DEVNULL)

    def follow(self, child, read):
        running, since, data = None, time.monotonic(), b""
        while True:
            ready, _, _ = select.select([read], [], [], 0.5)
            if ready:
                block = os.read(read, 65536)
                data += block
                *lines, data = data.split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    now = time.monotonic()
                    if event["event"] == "over":
                        return True
                    if event["event"] == "list":
                        self.ids, self.excluded = event["ids"], event["excluded"]
                    elif event["event"] == "start":
                        running = event["id"]
                    else:
                        running = None
                        self.report(event["id"], event["outcome"], event["message"], now - since)
                    since = now
                if block:
                    continue
            if child.poll() is not None or (ready and not block):
                try:
                    status = child.wait(5)
                except subprocess.TimeoutExpired:
                    status = "closed its report"
                self.report(running or "(loading) " + self.job["module"], "crash", f"the process ended: {status}\n{self.tail()}")
                return running is None
            if time.monotonic() - since > self.limit:
                os.kill(child.pid, signal.SIGABRT)  # faulthandler says where it is
                try:
                    child.wait(3)
                except subprocess.TimeoutExpired:
                    pass
                self.report(running or "(loading) " + self.job["module"], "hang", f"not over after {self.limit} s\n{self.tail()}", self.limit)
                return running is None

    def tail(self):
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - 3000))
        return self.log.read().decode("utf-8", "replace")


def lines_of(path):
    if not path:
        return []
    with open(path) as f:
        return [line.strip() for line in f if line.strip()]


def main():
    if sys.argv[1:2] == ["--child"]:
        job = json.loads(sys.argv[3])
        job["done"] = json.load(sys.stdin)
        run_tests(job, int(sys.argv[2]))
        return
    p = argparse.ArgumentParser()
    p.add_argument("--host", default=LOOPBACK)
    p.add_argument("--limit", type=float, default=60)
    p.add_argument("--exclude")
    p.add_argument("--only")
    p.add_argument("modules", nargs="+")
    args = p.parse_args()
    args.host = find_host(args.host)
    print(json.dumps({"host": args.host, "preload": os.environ.get("LD_PRELOAD", "")}), flush=True)
    for module in args.modules:
        Watch(args, module, lines_of(args.exclude), lines_of(args.only)).run()


if __name__ == "__main__":
    main()
