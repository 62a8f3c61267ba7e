#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tap.py FILE [TEST...]: runs the tests of a file, which are unittest's, and says how in TAP."""

import faulthandler
import importlib.util
import os
import pathlib
import sys
import threading
import traceback
import unittest
import warnings

# Longer than anything takes: what hangs says where.
HANG_SECONDS = 240


class Result(unittest.TestResult):
    def __init__(self, n_tests):
        super().__init__()
        self.reported = set()
        self.uncaught = []
        print(f'1..{n_tests}', flush=True)

    def say(self, test, word, text='', directive=''):
        """A test is reported once: that it has failed goes before what comes after."""
        name = test.id().removeprefix('test_').replace('.test_', '.')
        if name not in self.reported:
            self.reported.add(name)
            print(f'{word} {len(self.reported)} {name}{directive}', flush=True)
        for line in text.splitlines():
            print('#', line, flush=True)

    def note_uncaught(self, error):
        """What a thread does not take, or a finalizer, belongs to the test that runs, or has just run."""
        self.uncaught.append(''.join(traceback.format_exception(error.exc_value)))

    def addSuccess(self, test):
        if self.uncaught:
            text, self.uncaught = '\n'.join(self.uncaught), []
            self.failures.append((test, text))
            self.say(test, 'not ok', text)
        else:
            self.say(test, 'ok')

    def addSkip(self, test, reason):
        self.say(test, 'ok', directive=f' # SKIP {reason}')

    def addExpectedFailure(self, test, error):
        self.say(test, 'not ok', directive=' # TODO')

    def addUnexpectedSuccess(self, test):
        self.addFailure(test, None)

    def addFailure(self, test, error):
        text = ''.join(traceback.format_exception(*error)) if error else 'a success that was not expected'
        super().addFailure(test, error) if error else self.failures.append((test, text))
        self.say(test, 'not ok', text)

    addError = addFailure

    def addSubTest(self, test, subtest, error):
        if error is not None:
            super().addSubTest(test, subtest, error)
            self.say(test, 'not ok', f'{subtest}\n' + ''.join(traceback.format_exception(*error)))


def load(path):
    name = pathlib.Path(path).stem
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flatten(suite):
    for each in suite:
        yield from flatten(each) if isinstance(each, unittest.TestSuite) else [each]


def main(path, *names):
    faulthandler.enable()
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    tests = list(flatten(unittest.defaultTestLoader.loadTestsFromModule(load(path))))
    tests = [test for test in tests if not names or any(name in test.id() for name in names)]
    result = Result(len(tests))
    threading.excepthook = sys.unraisablehook = result.note_uncaught
    warnings.simplefilter('error', RuntimeWarning)  # a coroutine that nobody awaits or closes
    # Not as a suite: that has no place for results of its own set-up, and keeps tests.
    while tests:
        tests.pop(0).run(result)
    return 0 if result.wasSuccessful() else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
