# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How threads wait for a loop.

Where C can wait it does so best: it stays awake for a moment, without the interpreter lock, and so does
the loop, so that often neither has to be woken; it sees circles of loops that wait for each other. But
the main thread has to see Ctrl-C, and a function that runs is waited for in C whatever comes. So the
main thread waits in C for a moment, then in Python, for a lock; or in C in slices. C still does it where
it would refuse: where this thread has paused the loop, or shuts one down in CANCEL mode just now.
"""

import asyncio
import itertools
import math
import re
import threading
from _thread import allocate_lock, get_ident
from time import monotonic, sleep

from gi.repository import Gio, GObject

from . import native
from . import thread as threads
from .errors import ClosedError, cancelled, check, take, would_deadlock
from .text import say, say_number, translate

DONE, TIMED_OUT, CANCELLED, CLOSED = 'done', 'timed out', 'cancelled', 'closed'

NO_LIMIT = -1
LONGEST_MSEC = 2147483647

# The moment that the main thread waits in C, in milliseconds.
MOMENT_MSEC = 1

# How long a shutdown in CANCEL mode waits for a function to begin, in seconds.
LATEST_BEGIN = 0.05

# How many coroutines a report names.
NAMED = 6


def milliseconds(timeout):
    """A limit in seconds, or None, as C takes it."""
    if timeout is None:
        return NO_LIMIT
    if not timeout >= 0:
        raise ValueError(f'a time must not be negative: {timeout!r}')
    if timeout == 0:
        return 0
    if timeout * 1000 >= LONGEST_MSEC:
        return NO_LIMIT
    # What is a whole number but for its representation is not rounded up.
    return max(1, math.ceil(timeout * 1000 - 1e-6))


class _Countdown(float):
    """A limit, from which the end is made by adding the time, and from that what is left by subtracting it."""

    def __add__(self, time):
        return _Countdown(float(self) + time)

    def __sub__(self, time):
        return max(0.0, float(self) - time)


def countdown(timeout):
    """A limit in seconds, or None, for executors, who ask for results with what is left: 0, not less."""
    return None if milliseconds(timeout) == NO_LIMIT else _Countdown(timeout)


# Reports

def _name_running(line, name):
    """A line about what runs, in whatever language, with the name that Python knows; any other as it is."""
    running = translate('running %s for %s')
    parts = {1: r'(?P<name>.+)', 2: r'(?P<time>\S+\s\S+)'}
    order = [int(place or i + 1) for i, place in enumerate(re.findall(r'%(?:(\d)\$)?s', running))]
    words = [re.escape(word) for word in re.split(r'%(?:\d\$)?s', running)]
    match = re.fullmatch(words[0] + ''.join(parts[i] + word for i, word in zip(order, words[1:])), line)
    return line if match is None else line[:match.start('name')] + name + line[match.end('name'):]


def _list_work(loop, thread):
    """What is in the way of the loop, a line each: what C knows, with the names that Python knows."""
    described = loop.describe().rstrip('\n').split('\n')[1 + thread.name.count('\n'):]
    standing_by = translate('standing by:')
    lines = [line.strip() for line in itertools.takewhile(lambda line: line != standing_by, described)]
    running = thread.running
    if running is not None:
        name = running.describe()
        named = [_name_running(line, name) for line in lines]
        lines = named if named != lines else [say('running %s', name)] + lines

    names = [say('%s is pending', record.describe()) for record in list(thread.tasks.values())]
    if len(names) > NAMED:
        names[NAMED:] = [say_number('and %d more coroutine', 'and %d more coroutines', len(names) - NAMED)]
    return lines + names


def timeout_error(loop, thread, text, *values):
    """The text ends with the time, the last value, and with what is in the way."""
    work = '; '.join(_list_work(loop, thread)) or say('nothing is in the way any more')
    return TimeoutError(say(text, *values, work))


def did_not_end(loop, thread, name, msec):
    return timeout_error(loop, thread, '%s() on the loop "%s" did not end within %d ms: %s', name, thread.name, msec)


# A moment

_spare_errors = []  # that point to nothing


def wait_a_moment(thread):
    """On the main thread, for what was handed over last: asks the loop in C, which answers when it comes
    to that. What this adds to the loop's statistics is taken out of them again."""
    # Signal handlers come between any two lines, and may come here themselves.
    try:
        error = _spare_errors.pop()
    except IndexError:
        error = native.GErrorPointer()
    if not native.ask_current(thread.pointer, 0, MOMENT_MSEC, native.is_current_function, thread.pointer,
                              None, error):
        if isinstance(take(error), TimeoutError):
            thread.moments_in_vain += 1
        else:
            thread.moments_refused += 1
        thread.heed()
        return

    _spare_errors.append(error)
    thread.moments += 1


# A call

def acquire(lock, msec, slack=0):
    return lock.acquire() if msec == NO_LIMIT else lock.acquire(timeout=(msec + slack) / 1000)


class _OnCancelled:
    """While it is entered, has a function called when a cancellable is cancelled, in whatever thread.

    Not with Gio.Cancellable.connect(), which must not be used in a handler of the same cancellable.
    """

    def __init__(self, cancellable, function):
        self.cancellable = cancellable
        self.function = function
        self.handlers = []  # whoever takes it, disconnects it
        self.left = False

    def __enter__(self):
        self.handlers.append(GObject.Object.connect(self.cancellable, 'cancelled', lambda _: self.function()))
        if self.left:
            self._disconnect()
        elif self.cancellable.is_cancelled():
            self.function()
        return self

    def __exit__(self, *_):
        """In any thread, also before it has been entered."""
        self.left = True
        self._disconnect()

    def _disconnect(self):
        try:
            handler = self.handlers.pop()
        except IndexError:
            return
        GObject.Object.disconnect(self.cancellable, handler)


def check_cancellable(cancellable, thread, text):
    """The text is about the loop, by its name."""
    if cancellable is not None and cancellable.is_cancelled():
        raise cancelled(say(text, thread.name))


def wait_for_call(loop, thread, record, key, msec):
    """In Python, for a call that was accepted. How it ended."""
    def withdraw(outcome):
        if thread.pending.pop(key, None) is not None:
            record.end(outcome)

    try:
        if msec != 0:
            wait_a_moment(thread)
        if record.cancellable is None:
            done = acquire(record.lock, msec)
        else:
            with _OnCancelled(record.cancellable, lambda: withdraw(CANCELLED)):
                done = acquire(record.lock, msec)
        if not done:
            withdraw(TIMED_OUT)
            record.lock.acquire()
    except BaseException:
        thread.pending.pop(key, None)  # Ctrl-C: it never runs, unless it has begun
        raise
    return record.outcome


@native.callback(native.CallFunc)
def _call_cb(key, error):
    thread = threads._find_own()
    record = thread.pending.pop(key, None)
    if record is not None:
        thread.run_record(record)
    return 1


def call_visibly(thread, record, priority, msec):
    """In C. How it ended."""
    threads.check_priority(priority)
    key = next(thread.keys)
    thread.pending[key] = record
    cancellable = native.pointer(record.cancellable) if record.cancellable is not None else None
    try:
        if thread.refuses:
            raise thread.refusal()
        check(native.call_full, thread.pointer, priority, msec, _call_cb, key, cancellable)
    except TimeoutError:
        return TIMED_OUT
    except ClosedError:
        raise thread.refusal() from None
    finally:
        thread.pending.pop(key, None)
    return record.outcome


# Something that has a future

@native.callback(native.OperationFunc)
def _wait_cb(operation, cancellable, key, error):
    waiter = threads._find_own().pending.pop(key, None)
    native.operation_ref(operation)
    if waiter is None:
        _answer(operation)
    else:
        waiter.future.add_done_callback(lambda _: _answer(operation))
    return 1


class _Waiter:
    __slots__ = ('future',)

    KIND = threads.FUNCTION

    def __init__(self, future):
        self.future = future

    def describe(self):
        return 'waiting'

    def drop(self, key):
        pass


_answers = []


def _answer(operation):
    """Anything that is a GAsyncResult will do."""
    if not _answers:
        class Answer(GObject.Object, Gio.AsyncResult):
            __gtype_name__ = 'BgPythonAnswer'

        _answers.append(Answer())
    native.operation_answer(operation, native.pointer(_answers[0]))
    native.operation_unref(operation)


def _wait_in_c(thread, future, msec):
    """False if the time was over; None if only Python can wait, as the loop takes no more work."""
    loop = thread.reference()
    if loop is None:
        return None

    key = next(thread.keys)
    thread.pending[key] = _Waiter(future)
    try:
        result = check(native.perform_operation, thread.pointer, 0, msec, _wait_cb, key, None)
    except TimeoutError:
        return False
    except ClosedError:
        return None
    finally:
        thread.pending.pop(key, None)
    native.object_unref(result)
    return True


def wait_visibly(future, timeout):
    """For Future.result(): what is left to wait in Python afterwards."""
    msec = milliseconds(timeout)
    deadline = monotonic() + msec / 1000
    if _wait_in_c(future._thread, future, msec) is None:
        return None if msec == NO_LIMIT else max(0, deadline - monotonic())
    return 0


def _wait_in_python(future, msec):
    lock = allocate_lock()
    lock.acquire()
    future.add_done_callback(lambda _: lock.release())
    return acquire(lock, msec)


def wait_for_future(loop, thread, future, msec, name, give_up):
    """The future's outcome. What a thread does not wait for any more is cancelled, and named in the error."""
    done = None
    try:
        if thread.pauser == get_ident() or not threads.is_plain():
            done = _wait_in_c(thread, future, msec)
        elif waits_in_python(thread):
            wait_a_moment(thread)
        if done is None:
            done = _wait_in_python(future, msec)
    except BaseException:
        future.cancel()
        raise

    try:
        if not done:
            give_up(did_not_end(loop, thread, name, msec))
        if future.cancelled():
            raise thread.refusal() if future._closed else asyncio.CancelledError()
        return future.result()
    finally:
        future = None  # an exception's traceback has this frame


# All that was accepted, and the end

def waits_in_python(thread):
    """Whether the calling thread has to see signals, and nothing speaks for waiting in C."""
    return get_ident() == threads.Main.ident and not threads.here.handling \
        and thread.pauser != get_ident()


def flush(loop, thread, msec):
    if not waits_in_python(thread):
        _flush_once(thread, msec, None)
        return

    first = threads.SLICE_MSEC
    if NO_LIMIT < msec <= first:
        _flush_once(thread, msec, None)
        return
    try:
        _flush_once(thread, first, None)
    except TimeoutError:
        _flush_elsewhere(thread, msec - first if msec != NO_LIMIT else msec)


def _flush_once(thread, msec, cancellable):
    if thread.refuses:
        raise thread.refusal()
    check(native.flush, thread.pointer, msec, cancellable)


def _flush_elsewhere(thread, msec):
    """Another slice would also wait for what has come since. So somebody else waits, all of the time."""
    cancellable = Gio.Cancellable()
    errors = []
    done = allocate_lock()
    done.acquire()

    def wait():
        try:
            _flush_once(thread, msec, native.pointer(cancellable))
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    helper = threading.Thread(target=wait, name='bgloop flush', daemon=True)
    helper.start()
    try:
        done.acquire()
    finally:
        cancellable.cancel()
        helper.join()
    if errors:
        raise errors.pop()


def _let_begin(thread):
    """What the loop has been woken for, and only waits for the interpreter lock to begin, has begun."""
    deadline = monotonic() + LATEST_BEGIN
    while thread.running is None and thread.pauser is None and monotonic() < deadline \
            and any(record.KIND == threads.FUNCTION for record in list(thread.pending.values())):
        sleep(0.0002)


def shutdown(loop, thread, mode, msec):
    if get_ident() == thread.ident:
        raise would_deadlock(thread)
    if mode == threads.CANCEL and native.get_state(thread.pointer) == threads.RUNNING:
        _let_begin(thread)

    if get_ident() == threads.Main.ident and not threads.here.handling and not thread.forked and msec != 0:
        thread.quit(mode)
        ended = _wait_in_slices(thread, mode, msec)
    else:
        ended = _shutdown_once(thread, mode, msec)
        if mode == threads.CANCEL:
            thread.drop_all()
    if not ended:
        raise timeout_error(loop, thread, 'The loop "%s" has not stopped within %d ms: %s', thread.name, msec)


def _shutdown_once(thread, mode, msec):
    before = threads.here.handling
    threads.here.handling += mode == threads.CANCEL
    try:
        check(native.shutdown_full, thread.pointer, mode, msec, None)
    except TimeoutError:
        return False
    finally:
        threads.here.handling = before
        threads.raise_interruption()
    return True


def _wait_in_slices(thread, mode, msec):
    deadline = monotonic() + msec / 1000
    left = msec
    while True:
        if _shutdown_once(thread, mode, threads.SLICE_MSEC if left == NO_LIMIT
                          else max(1, min(left, threads.SLICE_MSEC))):
            return True
        if msec != NO_LIMIT:
            left = math.ceil((deadline - monotonic()) * 1000)
            if left <= 0:
                return False
