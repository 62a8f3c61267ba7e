# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Functions on a loop's thread, and futures."""

import concurrent.futures
import functools
import threading
from _thread import get_ident
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from time import monotonic, sleep

from . import thread as threads
from . import waiting
from .errors import would_deadlock

_DONE = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})
_LOOKS, _COMPLETES = 'looks', 'completes'
_LATE = {'_condition': threading.Condition, '_waiters': list, '_done_callbacks': list}


class Future(concurrent.futures.Future):
    """The future of something on a loop.

    Most of the cost of a future is its condition, and most are done when they are first looked at. So it
    has one from the first look at it, as well as the lists that go with it; everything else is there by
    default. Who looks may rely on the state as long as it has the condition, so it is settled in one step
    whether the first to come looks or completes: the latter then has no need of a condition, and who looks
    waits for the moment until the future is done.
    """

    __init__ = object.__init__

    _state = PENDING
    _result = _exception = None
    _thread = None  # is set by whoever makes one, as the next
    _key = None
    _closed = False  # a shutdown has cancelled it

    def __getattr__(self, name):
        make = _LATE.get(name)
        if make is None:
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')

        attributes = self.__dict__
        if attributes.setdefault('_first', _LOOKS) is _COMPLETES:
            # A finalizer may look on the thread that is about to complete it, which has to go on.
            thread = self._thread
            while self._state != FINISHED and not thread.forked and get_ident() != thread.ident:
                sleep(0)
        return attributes.setdefault(name, make())

    def cancel(self):
        thread, key = self._thread, self._key
        if thread is None:
            return super().cancel()
        if thread.forked:
            return False

        record = thread.live.pop(key, None)
        if record is not None:
            try:
                threads.insist(self._end_as_cancelled)
            finally:
                record.stop(key)
            return True
        record = thread.pending.get(key)
        if record is not None and record.KIND == threads.FUNCTION and thread.pending.pop(key, None) is not None:
            threads.insist(self._end_as_cancelled)
            return True
        return self.cancelled()

    def _end_as_cancelled(self):
        """By whoever has taken its record. Ctrl-C may come meanwhile: called again it goes on, where
        Future.cancel() would find nothing more to do."""
        with self._condition:
            if self._state in (PENDING, CANCELLED):
                self._state = CANCELLED
                self._condition.notify_all()
        try:
            while self._state in (CANCELLED, CANCELLED_AND_NOTIFIED) and self._done_callbacks:
                callback = self._done_callbacks.pop(0)
                try:
                    callback(self)
                except Exception:
                    LOGGER.exception('exception calling callback for %r', self)
        finally:
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()

    def _end_as_closed(self):
        self._closed = True
        self._end_as_cancelled()

    def _begin_wait(self, timeout):
        """What is left of the time for Python to wait."""
        waiting.milliseconds(timeout)  # refuses what is no time
        thread = self._thread
        if self._state in _DONE or thread is None:
            return timeout

        if thread.forked:
            raise thread.refusal()
        if get_ident() == thread.ident:
            raise would_deadlock(thread)
        if not threads.is_plain():
            return waiting.wait_visibly(self, timeout)
        loop = thread.reference()
        if loop is not None and timeout is None and waiting.waits_in_python(thread):
            waiting.wait_a_moment(thread)
        elif loop is not None:
            thread.heed()
        return timeout

    def _explain_timeout(self, error, name, timeout):
        """What to raise, or None if the error is the function's own, or a signal handler's, or nobody knows what
        is in the way."""
        loop = self._thread.reference() if self._thread is not None else None
        own = type(error) is concurrent.futures.TimeoutError and not error.args and timeout is not None
        if not own or self._state in _DONE or loop is None:
            return None
        explained = waiting.did_not_end(loop, self._thread, name, waiting.milliseconds(timeout))
        return concurrent.futures.TimeoutError(*explained.args)  # another class before Python 3.11

    def result(self, timeout=None):
        left = timeout
        try:
            if timeout is not None or self._state != FINISHED:
                left = self._begin_wait(timeout)
            if self._state == FINISHED:
                return self._Future__get_result()
            return super().result(left)
        except concurrent.futures.TimeoutError as error:
            explained = self._explain_timeout(error, 'result', timeout)
            if explained is None:
                raise
            raise explained from None
        finally:
            self = explained = None  # an exception's traceback has this frame

    def exception(self, timeout=None):
        try:
            return super().exception(self._begin_wait(timeout))
        except concurrent.futures.TimeoutError as error:
            explained = self._explain_timeout(error, 'exception', timeout)
            if explained is None:
                raise
            raise explained from None
        finally:
            self = explained = None


def complete(record, box, error=None):
    """Gives a record's future a result, the last in a box, or an exception.

    Future.set_result() would do, but keeps both for a moment after others have seen the result: who
    then looks whether it has been the last to have it would be wrong.
    """
    future, record.future = record.future, None
    if future._state in _DONE:
        return
    if error is None:
        future._result = box.pop()
    else:
        future._exception = error
        error = None
    if future.__dict__.setdefault('_first', _COMPLETES) is _COMPLETES:
        future._state = FINISHED
        return

    with future._condition:
        future._state = FINISHED
        for waiter in future._waiters:
            (waiter.add_result if future._exception is None else waiter.add_exception)(future)
        future._condition.notify_all()
        if not future._done_callbacks:
            future = None
    if future is not None:
        future._invoke_callbacks()


def without_own_frame(error):
    """Without the frame that has caught it, which refers to what is to have it."""
    error.__traceback__ = error.__traceback__.tb_next
    return error


class _Function:
    """A function with its arguments."""

    __slots__ = 'fn', 'args', 'kwargs'

    KIND = threads.FUNCTION

    def __init__(self, fn, args, kwargs):
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def describe(self):
        return describe(self.fn)


class Post(_Function):
    """Nobody waits for it."""

    __slots__ = ()

    def run(self):
        try:
            self.fn(*self.args, **self.kwargs)
        except BaseException as error:
            threads.report(without_own_frame(error))
        self.fn = self.args = self.kwargs = None

    def drop(self, key):
        self.fn = self.args = self.kwargs = None


class Delayed(Post):
    __slots__ = ()

    KIND = threads.DELAYED


class Submitted(_Function):
    """A future has its outcome."""

    __slots__ = ('future',)

    def __init__(self, future, fn, args, kwargs):
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs

    def run(self):
        # Whoever cancels it takes the record away first: this needs no lock.
        if self.future._state != PENDING:
            return

        self.future._state = RUNNING
        try:
            box = [self.fn(*self.args, **self.kwargs)]
        except BaseException as error:
            self.fn = self.args = self.kwargs = None
            complete(self, None, without_own_frame(error))
        else:
            self.fn = self.args = self.kwargs = None
            complete(self, box)

    def drop(self, key):
        self.future._end_as_closed()


class Call(_Function):
    """A thread waits for its outcome."""

    __slots__ = 'context', 'lock', 'deadline', 'cancellable', 'value', 'error', 'outcome'

    def __init__(self, fn, args, kwargs, context, lock, deadline, cancellable):
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.lock = lock
        self.deadline = deadline
        self.cancellable = cancellable
        self.value = self.error = None
        self.outcome = None

    def run(self):
        if self.deadline is not None and monotonic() >= self.deadline:
            self.end(waiting.TIMED_OUT)
        elif self.cancellable is not None and self.cancellable.is_cancelled():
            self.end(waiting.CANCELLED)
        else:
            try:
                self.value = self.context.run(self.fn, *self.args, **self.kwargs)
            except BaseException as error:
                self.error = without_own_frame(error)
            self.end(waiting.DONE)

    def end(self, outcome):
        """Nothing of the work is left when its waiter wakes."""
        self.fn = self.args = self.kwargs = self.context = None
        self.outcome = outcome
        self.lock.release()

    def drop(self, key):
        self.end(waiting.CLOSED)


class Handle:
    """Delayed work, to be cancelled."""

    __slots__ = '_thread', '_key', '_number'

    def __init__(self, thread, key, number):
        self._thread = thread
        self._key = key
        self._number = number

    def cancel(self):
        """True if the function has not started, and never will."""
        thread = self._thread
        if thread.forked or thread.pending.pop(self._key, None) is None:
            return False

        loop = thread.reference()
        if loop is not None:
            threads.native.withdraw(thread.pointer, self._number)
        return True


def describe(fn):
    """A function's name, for people. It may be any object, and have attributes that are made up, or raise."""
    if type(fn) is functools.partial:
        return describe(fn.func)

    try:
        name = getattr(fn, '__qualname__', None) or getattr(fn, '__name__', None)
        module = getattr(fn, '__module__', None)
    except Exception:
        name = None
    if not isinstance(name, str):
        name, module = type(fn).__qualname__, type(fn).__module__
    return f'{module}.{name}' if isinstance(module, str) and module else name
