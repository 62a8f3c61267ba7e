# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests have in common."""

import atexit
import json
import os
import subprocess
import sys
import textwrap
import threading

import bgloop
from bgloop import Bg
from bgloop.testing import LoopTestCase
from gi.repository import Gio, GLib, GObject

__all__ = ['Bg', 'Gio', 'GLib', 'GObject', 'Gate', 'LoopTestCase', 'HANG', 'bgloop', 'run_program', 'run_script',
           'scaled']

# What would hang fails after so many seconds.
HANG = 60


def scaled(n):
    """How often something is repeated: BGLOOP_TEST_SCALE is a percentage."""
    return max(1, n * int(os.environ.get('BGLOOP_TEST_SCALE', '100')) // 100)


class Gate:
    """A function that runs until it is let go, for a loop to be busy with."""

    def __init__(self, loop=None, post=True):
        self.entered = threading.Event()
        self.opened = threading.Event()
        if loop is not None:
            assert loop.post(self)
            self.wait()

    def __call__(self):
        self.entered.set()
        assert self.opened.wait(HANG)

    def wait(self):
        assert self.entered.wait(HANG)

    def open(self):
        self.opened.set()


def run_script(text, *arguments, check=True, **keywords):
    """Runs a program of its own. What it says, and how it has ended."""
    text = 'import faulthandler; faulthandler.enable()\n' + textwrap.dedent(text)
    process = subprocess.run([sys.executable, '-c', text, *arguments], capture_output=True, text=True,
                             timeout=HANG, **keywords)
    if check and process.returncode != 0:
        raise AssertionError(f'exit status {process.returncode}\n{process.stdout}\n{process.stderr}')
    return process


_starter = None


def run_program(text):
    """Runs a program of its own, which begins with everything imported. Much faster than run_script()."""
    global _starter

    if _starter is None or _starter.poll() is not None:
        _starter = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), 'starter.py')],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(_starter.stdin.close)
    print(json.dumps(text), file=_starter.stdin, flush=True)
    answer = json.loads(_starter.stdout.readline())
    return subprocess.CompletedProcess([], *answer)
