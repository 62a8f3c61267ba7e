# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""gi.repository.Bg, as Python wants it."""

import asyncio
import concurrent.futures
import math
import warnings
from _thread import allocate_lock, get_ident
from contextvars import copy_context
from time import monotonic

from gi.module import get_introspection_module
from gi.overrides import override
from gi.repository import Gio, GLib, GObject

Bg = get_introspection_module('Bg')
Bg.Loop.__gtype__  # so that the library is loaded

# PyGObject makes a class when it is first asked for it, and other threads may see it half made.
for _module, _names in ((Bg, ('Error', 'LoopState', 'LoopStats', 'Operation', 'ShutdownMode')),
                        (Gio, ('AsyncResult', 'Cancellable', 'IOErrorEnum'))):
    for _name in _names:
        getattr(_module, _name)

from _bgloop import native, waiting  # noqa: E402
from _bgloop import thread as threads  # noqa: E402
from _bgloop.coroutine import Coroutine  # noqa: E402
from _bgloop.errors import ClosedError, ForkedError, WouldDeadlockError, cancelled, would_deadlock  # noqa: E402
from _bgloop.operation import Operation  # noqa: E402
from _bgloop.text import say  # noqa: E402
from _bgloop.work import Call, Delayed, Future, Handle, Post, Submitted, describe  # noqa: E402

__all__ = ['Loop', 'Hold', 'Handle', 'Future', 'ClosedError', 'WouldDeadlockError', 'ForkedError',
           'test_pause', 'test_step', 'test_run_until_idle', 'test_resume']

PRIORITY_DEFAULT = int(GLib.PRIORITY_DEFAULT)
LINGER_MAX = 0.001
DELAY_MAX_MSEC = 4294967295

for _class in ClosedError, WouldDeadlockError, ForkedError, Handle, Future:
    _class.__module__ = 'gi.repository.Bg'


class Hold:
    """Keeps a loop from ending until it is released."""

    _number = 0
    _thread = None

    def __init__(self, loop, reason):
        self._thread = loop._thread
        self.reason = reason
        self._number = self._thread.hold(reason)
        self._loop = loop

    def release(self):
        """Lets the loop end. Once is enough, more often is harmless."""
        number, self._number = self._number, 0
        if number:
            self._thread.release(number)
        self._loop = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()

    def __del__(self):
        if self._number and self._number in self._thread.holds and not self._thread.forked:
            warnings.warn(f'{self!r} was never released', ResourceWarning, source=self)
            self.release()

    def __repr__(self):
        return f'<Hold {self.reason!r} of the loop "{self._thread.name}">'


Hold.__module__ = 'gi.repository.Bg'


class _Thread:
    """What Python knows of a loop, from the first time that it is asked for."""

    def __get__(self, loop, owner):
        return self if loop is None else threads.of(loop)


class Loop(Bg.Loop, concurrent.futures.Executor):
    """A main loop on a thread of its own, an executor, and a home for coroutines.

    It runs when it is there. Leaving it as a context manager shuts it down: everything that it has
    accepted runs to its end; after an exception, what has not started never runs.
    """

    _thread = _Thread()

    def __init__(self, name=None, *, linger=None):
        if threads.Leaving.begun:
            raise ClosedError(say('Python is leaving: there are no more loops'))
        if linger is not None and not 0 <= linger <= LINGER_MAX:
            raise ValueError(f'linger must be from 0 to {LINGER_MAX}: {linger!r}')

        with threads.starting():
            GObject.Object.__init__(self, name=name)
            self.init(None)
            if linger is not None:
                self.props.linger = round(linger * 1e6)
            self._wait_for_start()

    def _wait_for_start(self):
        """So that Python's state of the thread is there for good: a child that is forked off while such
        a state comes and goes may hang."""
        thread = self._thread
        if thread.ident is None and thread.serial and not thread.forked:
            thread.started.acquire()
            thread.started.release()

    @classmethod
    def new(cls, name=None):
        return cls(name)

    @classmethod
    def default(cls):
        """The process's shared loop, which is started if there is none."""
        if threads.Leaving.begun:
            raise ClosedError(say('Python is leaving: there are no more loops'))

        # PyGObject takes C's reference over in two steps, which must not meet those of another thread.
        with threads.starting():
            loop = Bg.Loop.dup_default()
            is_new = '_thread' not in loop.__dict__ and Bg.Loop.get_stats(loop).posted == 0
            loop._thread
            if is_new:
                loop._wait_for_start()
        return loop

    @classmethod
    def dup_default(cls):
        return cls.default()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.shutdown(cancel_futures=kind is not None)
        return False

    # Functions

    def call(self, fn, /, *args, timeout=None, priority=PRIORITY_DEFAULT, cancellable=None, **kwargs):
        """Runs a function on the loop's thread and waits for it. What it returns is returned, what it
        raises is raised. The limit is for it to start."""
        thread = self._thread
        if timeout is None and cancellable is None:
            msec = waiting.NO_LIMIT
        else:
            msec = waiting.milliseconds(timeout)
            if not thread.forked:
                waiting.check_cancellable(cancellable, thread,
                                          'A call to the loop "%s" that had not started was cancelled')
        if get_ident() == thread.ident:
            return fn(*args, **kwargs)

        lock = allocate_lock()
        lock.acquire()
        record = Call(fn, args, kwargs, copy_context(), lock,
                      None if msec == waiting.NO_LIMIT else monotonic() + msec / 1000, cancellable)
        name = None if msec == waiting.NO_LIMIT and cancellable is None else describe(fn)
        fn = args = kwargs = None
        if waiting.waits_in_python(thread):
            key = thread.offer(record, priority)
            if key is None:
                raise thread.refusal()
            if msec == waiting.NO_LIMIT and cancellable is None:
                try:
                    waiting.wait_a_moment(thread)
                    lock.acquire()
                except BaseException:
                    thread.pending.pop(key, None)  # Ctrl-C: it never runs, unless it has begun
                    raise
                outcome = record.outcome
            else:
                outcome = waiting.wait_for_call(self, thread, record, key, msec)
        else:
            outcome = waiting.call_visibly(thread, record, priority, msec)

        if outcome is waiting.DONE:
            if record.error is None:
                value, record.value = record.value, None
                return value
            error, record.error = record.error, None
            try:
                raise error
            finally:
                error = None
        raise self._call_error(outcome, name, msec)

    def _call_error(self, outcome, name, msec):
        thread = self._thread
        if outcome is waiting.TIMED_OUT:
            return waiting.timeout_error(self, thread, '%s() on the loop "%s" did not start within %d ms: %s',
                                         name, thread.name, msec)
        if outcome is waiting.CANCELLED:
            return cancelled(say('%s() on the loop "%s" was cancelled', name, thread.name))
        return ClosedError(say('The loop "%s" was shut down before the call started', thread.name))

    def post(self, fn, /, *args, priority=PRIORITY_DEFAULT, **kwargs):
        """Has a function run on the loop's thread. False if the loop takes no more work."""
        return self._thread.offer(Post(fn, args, kwargs), priority) is not None

    def submit(self, fn, /, *args, **kwargs):
        """Has a function run on the loop's thread. Its outcome is the future's."""
        thread = self._thread
        future = Future()
        future._thread = thread
        future._key = key = next(thread.keys)
        thread.pending[key] = Submitted(future, fn, args, kwargs)
        if thread.refuses or not native.post_full(thread.pointer, PRIORITY_DEFAULT, threads._run_cb, key, None):
            thread.pending.pop(key, None)
            raise thread.refusal()
        return future

    def map(self, fn, *iterables, timeout=None, chunksize=1, **options):
        """Has a function run on the loop's thread for each item. The outcomes, in the order of the items.
        The options are what else the executors of this Python have."""
        return concurrent.futures.Executor.map(self, fn, *iterables, timeout=waiting.countdown(timeout),
                                               chunksize=chunksize, **options)

    def call_later(self, delay, fn, /, *args, **kwargs):
        """Has a function run on the loop's thread, so many seconds from now."""
        if not delay >= 0:
            raise ValueError(f'a time must not be negative: {delay!r}')
        if delay * 1000 > DELAY_MAX_MSEC:
            raise OverflowError(f'this is too long: {delay!r}')

        thread = self._thread
        key = next(thread.keys)
        thread.pending[key] = Delayed(fn, args, kwargs)
        number = 0
        if not thread.refuses:
            number = native.post_after(thread.pointer, math.ceil(delay * 1000 - 1e-6), threads._run_cb, key, None)
        if not number:
            thread.pending.pop(key, None)
            raise thread.refusal()
        return Handle(thread, key, number)

    def add_teardown(self, fn, /, *args, **kwargs):
        """Has a function run on the loop's thread when all work is done, the last to be added first."""
        self._thread.add_teardown(Post(fn, args, kwargs))

    def hold(self, reason):
        """Keeps the loop from ending until what this returns is released."""
        return Hold(self, reason)

    # Gio's asynchronous operations

    def perform(self, method, /, *args, finish=None, timeout=None, cancellable=None, **kwargs):
        """Performs an operation on the loop and waits for it: its begin method, and the arguments that
        come before the cancellable. What its finish function returns is returned, what that raises is
        raised."""
        thread = self._thread
        msec = waiting.milliseconds(timeout)
        if get_ident() == thread.ident:
            raise would_deadlock(thread)

        name = getattr(method, '__name__', method)
        operation, future = self._perform(method, args, kwargs, finish, cancellable)
        method = args = kwargs = finish = None
        try:
            return waiting.wait_for_future(self, thread, future, msec, name, operation.give_up)
        finally:
            operation = future = None  # an exception's traceback has this frame

    def perform_soon(self, method, /, *args, finish=None, cancellable=None, **kwargs):
        """Performs an operation on the loop. Its outcome is the future's."""
        return self._perform(method, args, kwargs, finish, cancellable)[1]

    def _perform(self, method, args, kwargs, finish, cancellable):
        thread = self._thread
        if not thread.forked:
            waiting.check_cancellable(cancellable, thread, 'An operation on the loop "%s" was cancelled')
        future = Future()
        future._thread = thread
        operation = Operation(self, thread, method, args, kwargs, finish, future, copy_context())
        if not operation.submit(cancellable):
            raise thread.refusal()
        return operation, future

    # Coroutines

    def run(self, coro, *, timeout=None):
        """Runs a coroutine on the loop and waits for it."""
        thread = self._thread
        self._check_coroutine(coro)
        try:
            msec = waiting.milliseconds(timeout)
            if get_ident() == thread.ident:
                raise would_deadlock(thread)
        except BaseException:
            coro.close()
            raise

        name = describe(coro)
        coroutine, future = self._spawn(coro)
        coro = None
        try:
            return waiting.wait_for_future(self, thread, future, msec, name, coroutine.give_up)
        finally:
            coroutine = future = None  # an exception's traceback has this frame

    def spawn(self, coro):
        """Runs a coroutine on the loop. Its outcome is the future's."""
        self._check_coroutine(coro)
        return self._spawn(coro)[1]

    def _check_coroutine(self, coro):
        if not asyncio.iscoroutine(coro):
            raise TypeError(f'a coroutine was expected, got {coro!r}')

    def _spawn(self, coro):
        thread = self._thread
        future = Future()
        future._thread = thread
        coroutine = Coroutine(self, thread, coro, future, copy_context())
        if not coroutine.submit():
            coro.close()
            raise thread.refusal()
        return coroutine, future

    # Looking

    def get_stats(self):
        """A snapshot of what the loop has done and has to do."""
        stats = Bg.Loop.get_stats(self)
        thread = self._thread
        # What has just run may not be counted yet.
        stats.posted = max(0, stats.posted - thread.n_own - thread.moments - thread.moments_in_vain)
        stats.run = max(0, stats.run - thread.n_own - thread.moments)
        stats.cancelled = max(0, stats.cancelled - thread.moments_in_vain)
        stats.refused = max(0, stats.refused - thread.moments_refused)
        return stats

    # Waiting, and the end

    def flush(self, timeout=None):
        """Waits until all that the loop has accepted so far is done: functions, and the beginnings of
        operations and coroutines."""
        thread = self._thread
        msec = waiting.milliseconds(timeout)
        try:
            waiting.flush(self, thread, msec)
        except TimeoutError:
            raise waiting.timeout_error(self, thread, 'The loop "%s" was not flushed within %d ms: %s',
                                        thread.name, msec) from None

    def shutdown_full(self, mode, timeout_msec, cancellable):
        """As introspection gives it."""
        if mode == Bg.ShutdownMode.CANCEL:
            self._thread.heed()
        return Bg.Loop.shutdown_full(self, mode, timeout_msec, cancellable)

    def shutdown_async(self, mode, *arguments):
        """As introspection gives it."""
        if mode == Bg.ShutdownMode.CANCEL:
            self._thread.heed()
        return Bg.Loop.shutdown_async(self, mode, *arguments)

    def quit(self, mode=Bg.ShutdownMode.DRAIN):
        """Has the loop end, without waiting for that. In a forked child there is nothing to end."""
        self._thread.quit(int(mode))

    def shutdown(self, wait=True, *, cancel_futures=False, timeout=None):
        """Ends the loop: what it has accepted runs to its end, or with cancel_futures never runs if it
        has not started."""
        thread = self._thread
        mode = threads.CANCEL if cancel_futures else threads.DRAIN
        msec = waiting.milliseconds(timeout)
        if wait:
            waiting.shutdown(self, thread, mode, msec)
        elif thread.forked:
            raise thread.refusal()
        else:
            thread.quit(mode)


Loop = override(Loop)


# Step by step. The thread that has a loop stand still must not wait for it, which C refuses.

def _paused(function):
    def paused(loop):
        result = function(loop)
        loop._thread.pauser = get_ident()
        return result

    paused.__name__ = function.__name__
    return paused


def test_resume(loop):
    Bg.test_resume(loop)
    loop._thread.pauser = None


def test_run_until_idle(loop):
    return Bg.test_run_until_idle(loop)


test_pause = _paused(Bg.test_pause)
test_step = _paused(Bg.test_step)
