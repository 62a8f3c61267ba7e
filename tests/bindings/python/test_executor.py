# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPython's own tests of executors, with a loop for the executor: those of thread pools that are not about
several workers. They are taken from where the distribution has them, and are not here."""

import functools
import importlib
import os
import signal
import sys
import tempfile
import textwrap
import types
import unittest

try:
    from test import support  # noqa: F401
    package = importlib.import_module('test.test_concurrent_futures')
except (ImportError, unittest.SkipTest) as error:
    print(f'1..0 # SKIP CPython\'s own tests are not here: {error}')
    raise SystemExit(0) from error

from _bgloop import waiting
from executor import LoopExecutor
from util import HANG

SKIPPED = 77  # the exit status

# A shutdown that cancels waits a moment for a function to begin, and test_cancel_futures expects that one has. On a
# busy machine the loop's thread may need longer.
waiting.LATEST_BEGIN = HANG

# What does not apply, and why.
WORKERS = 'is about several workers, or how many there are'
NAMES = 'is about names for several workers'
INITIALIZERS = 'is about initializers, which workers have'
WORDING = 'looks in a traceback for "RuntimeError: cannot schedule new futures", where a ClosedError says it otherwise'
DRAINING = 'has a function that submits itself for ever, which a loop that drains lets it'
EXCEPTIONS = {
    'test_threads_terminate': WORKERS,
    'test_max_workers_negative': WORKERS,
    'test_default_workers': WORKERS,
    'test_saturation': WORKERS,
    'test_idle_thread_reuse': WORKERS,
    'test_thread_names_assigned': NAMES,
    'test_thread_names_default': NAMES,
    'test_initializer': INITIALIZERS,
    'test_hang_global_shutdown_lock': DRAINING,
    'test_submit_after_interpreter_shutdown': WORDING,
}


def get_modules():
    """One until 3.12, then several."""
    if not hasattr(package, '__path__'):
        return [package]
    return [importlib.import_module(f'{package.__name__}.{name}')
            for name in ('test_shutdown', 'test_wait', 'test_as_completed', 'test_thread_pool')]


def adapt_program(assert_python_ok, option, program):
    """What runs in a process of its own imports the executor by its name, and needs the environment."""
    program = textwrap.dedent(program.partition('\n')[2]).replace(
        'from concurrent.futures import LoopExecutor', 'from executor import LoopExecutor')
    here = os.path.dirname(os.path.abspath(__file__))
    return assert_python_ok(option, f'import sys; sys.path.append({here!r})\n{program}',
                            PYTHONDONTWRITEBYTECODE='1', __isolated=False)


class Futures(types.ModuleType):
    """concurrent.futures, with another executor."""

    ThreadPoolExecutor = LoopExecutor

    def __getattr__(self, name):
        return getattr(sys.modules['concurrent.futures'], name)


def adapt(module):
    module.futures = Futures('futures')
    if hasattr(module, 'assert_python_ok'):
        module.assert_python_ok = functools.partial(adapt_program, module.assert_python_ok)


class InChild(unittest.TestCase):
    """A test that runs in a child, as they sleep a lot, all at the same time."""

    def __init__(self, test):
        super().__init__('check')
        self.test = test
        self.output = tempfile.TemporaryFile('w+')
        self.child = os.fork()
        if self.child == 0:
            os._exit(self.run_here())

    def run_here(self):
        status = 2
        try:
            signal.alarm(HANG)
            os.dup2(self.output.fileno(), 1)
            os.dup2(self.output.fileno(), 2)
            result = unittest.TestResult()
            self.test.run(result)
            for _, text in result.failures + result.errors:
                print(text)
            for _, reason in result.skipped:
                print(reason)
            status = SKIPPED if result.skipped else int(not result.wasSuccessful())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return status

    def id(self):
        return f'{type(self.test).__name__}.{self.test._testMethodName}'

    def check(self):
        status = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.output.seek(0)
        said = self.output.read()
        self.output.close()
        if status == SKIPPED:
            self.skipTest(f'CPython skips it: {said.strip()}')
        self.assertEqual(status, 0, said)


def load_tests(loader, standard, pattern):
    suite = unittest.TestSuite()
    for module in get_modules():
        adapt(module)
        for name, case in sorted(vars(module).items()):
            if name.startswith('ThreadPool') and isinstance(case, type) and issubclass(case, unittest.TestCase):
                case.executor_type = LoopExecutor
                suite.addTests(InChild(case(method)) for method in loader.getTestCaseNames(case)
                               if method not in EXCEPTIONS)
    return suite
