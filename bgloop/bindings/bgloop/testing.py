# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""For test suites: a loop for each test, and nothing of it left behind.

BG_TEST_TIMEOUT is how long is waited, in milliseconds, for what may still end by itself: 5000 if it is
not set, -1 for no limit.
"""

import gc
import threading
import time
import unittest
import weakref

from _bgloop import thread as _threads

from . import Bg

__all__ = ['LoopTestCase', 'assert_no_loops']

__unittest = True  # tracebacks leave this out


class Mark:
    """What there was at a moment: only what is newer counts."""

    def __init__(self):
        self._loops = Bg.test_mark_loops()
        self._threads = weakref.WeakSet(threading.enumerate())
        self._serials = {thread.serial for thread in _threads.get_all()}

    def describe_left(self):
        """What has come since and has not ended, or None. Waits for what is about to end."""
        if Bg.test_describe_loops(self._loops, 0) is None and not self._list_threads():
            return None

        gc.collect()
        timeout = Bg.test_get_timeout()
        deadline = None if timeout == -1 else time.monotonic() + timeout / 1000
        loops = Bg.test_describe_loops(self._loops, timeout)
        left = [loops] if loops is not None else []
        return '; '.join(left + self._list_coroutines() + self._wait_for_threads(deadline)) or None

    def _list_coroutines(self):
        return [f'{record.describe()} is pending on "{thread.name}"'
                for thread in _threads.get_all() if thread.serial not in self._serials
                for record in list(thread.tasks.values())]

    def _list_threads(self):
        loops = {thread.ident for thread in _threads.get_all()}
        return [thread for thread in threading.enumerate()
                if thread not in self._threads and thread.ident not in loops
                and thread is not threading.current_thread()
                and not isinstance(thread, threading._DummyThread)]

    def _wait_for_threads(self, deadline):
        for thread in self._list_threads():
            thread.join(None if deadline is None else max(0, deadline - time.monotonic()))
        return [f'the thread "{thread.name}" is running' for thread in self._list_threads()]


def assert_no_loops():
    """Fails if there is any loop in the process, after a while for those that are about to end."""
    gc.collect()
    left = Bg.test_describe_loops(0, Bg.test_get_timeout())
    assert left is None, f'left behind: {left}'


def end_loop(loop):
    """Has a test's loop run what it has accepted. What is in the way if it did not end in time."""
    timeout = Bg.test_get_timeout()
    try:
        # Not to wait is for healthy tests, whose loops end at once, but not within no time.
        loop.shutdown(timeout=None if timeout == -1 else max(timeout, 1000 if timeout == 0 else 0) / 1000)
    except TimeoutError as error:
        return str(error)
    return None


class LoopTestCase(unittest.TestCase):
    """A test case, or a mixin for one: each test has a loop, self.loop, that is named after it.

    When the test is over, the loop runs what it has accepted, and ends. The test fails if it leaves
    anything behind: a loop, a hold, an operation, a coroutine or a thread.
    """

    def setUp(self):
        super().setUp()
        mark = Mark()
        self.addCleanup(self._check_left, mark)
        self.loop = Bg.Loop(self.id().rsplit('.', 1)[-1])

    def tearDown(self):
        super().tearDown()
        self._end_loop()

    def _end_loop(self):
        loop, self.loop = self.loop, None
        if loop is None:
            return

        left = end_loop(loop)
        if left is not None:
            names = [f'{record.describe()} is pending' for record in list(loop._thread.tasks.values())]
            loop.quit(Bg.ShutdownMode.CANCEL)
            self._left = '; '.join([left] + [name for name in names if name not in left])

    # unittest forgets, before it cleans up, how the test has gone, and keeps exceptions that were expected.

    _passed, _left = True, None

    def run(self, result=None):
        self._passed, self._left = True, None
        return super().run(result)

    def _callSetUp(self):
        self._call_noting(super()._callSetUp)

    def _callTestMethod(self, method):
        self._call_noting(super()._callTestMethod, method)

    def _callTearDown(self):
        self._call_noting(super()._callTearDown)

    def _call_noting(self, call, *arguments):
        passed = False
        try:
            call(*arguments)
            passed = self._outcome is None or self._outcome.success  # not so if a part of it has failed
        finally:
            self._passed = self._passed and passed

    def _check_left(self, mark):
        self._end_loop()
        left = self._left
        # What a test has that was left by an exception is in the traceback.
        if left is None and self._passed:
            left = mark.describe_left()
        if left is not None:
            self.fail(f'left behind: {left}')
