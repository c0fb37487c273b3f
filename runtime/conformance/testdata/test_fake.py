# SPDX-License-Identifier: Apache-2.0
"""Tests of every outcome, for the runner's own test."""
import os
import socket
import time
import unittest


class A(unittest.TestCase):
    def test_1_ok(self):
        self.assertEqual("127.0.0.1", os.environ["WANT_HOST"])

    def test_2_hang(self):
        time.sleep(60)

    def test_3_crash(self):
        os._exit(7)

    def test_4_fail(self):
        for i in range(2):
            with self.subTest(i=i):
                self.assertEqual(i, 0)

    @unittest.skip("why")
    def test_5_skip(self):
        pass

    @unittest.expectedFailure
    def test_6_xfail(self):
        self.fail()

    def test_7_left(self):
        self.fail()

    def test_8_forks(self):
        if os.fork() == 0:
            raise RuntimeError("a child that goes on as a test must not report")
        os.wait()


class B(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("no")

    def test_lost(self):
        pass


class Udp(unittest.TestCase):
    def test_stays(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            self.assertEqual(s.getsockname()[0], ".".join("127 0 0 1".split()))
