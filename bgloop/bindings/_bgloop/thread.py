# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Python half of a loop: what is there from the first that Python hears of it to the end of its thread.

Work is a record, an object with run() and drop(), under a number among what its loop has pending. C has
the number, and gives it back on the loop's thread. Whoever takes a record out of there decides its
outcome: the loop, which runs it; a waiter that gives up; a shutdown in CANCEL mode. That needs no lock,
as taking something out of a dict is one step. Operations and coroutines, which go on when they have begun,
are among what is live as well, and it is that from which they are taken to decide their outcome; they
have stop() instead of drop().

Two locks are here. They can be taken again by the thread that has them, as any allocation may collect
garbage, whose finalizers may come back here.

While a thread starts, Python makes its state under a lock of its own, but not under the interpreter's: a
child that is forked off just then may find it taken, and hang. So a fork waits for loops that start.
"""

import atexit
import collections
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from _thread import allocate_lock, get_ident

from . import native
from .errors import ClosedError, ForkedError, check
from .text import say

RUNNING, STOPPING, STOPPED = range(3)  # Bg.LoopState
DRAIN, CANCEL = range(2)  # Bg.ShutdownMode

FIRST = -2147483648  # the priority above all
LAST = 2147483647  # and that below

# How long a wait in C may take before Python sees a signal, in milliseconds.
SLICE_MSEC = 100

# When Python leaves: for so long others may keep a loop that has no more work of Python's, in seconds.
GRACE = 1.0

_serials = itertools.count(1)
_by_serial = {}  # until the thread has ended
_by_context = {}  # the same, by the GMainContext, which no other loop has so long
_by_ident = {}  # the same, by the thread, once Python is attached to it
_registering = threading.RLock()
_starting = threading.RLock()
_left = None  # why loops are not ended, once Python leaves
_generation = 0  # how many forks there are between the first process and this one


def check_priority(priority):
    """ctypes would take any number, and cut it."""
    if not FIRST <= priority <= LAST:
        raise OverflowError(f'a priority has 32 bits: {priority!r}')


class _Here(threading.local):
    """What is known of the calling thread."""

    plain = None  # whether it is no loop's, so that nobody can wait for it
    handling = 0  # how many shutdowns in CANCEL mode it is asking for
    interruption = None  # the Ctrl-C that a callback from C has got meanwhile


here = _Here()


class Main:
    """The thread that gets Ctrl-C."""

    ident = threading.main_thread().ident


class Leaving:
    """Whether Python leaves: nothing new is taken."""

    begun = False


def report(error):
    """Tells of an exception that nobody takes."""
    try:
        arguments = type(error), error, error.__traceback__, threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs(arguments))
    except BaseException as another:
        another.__context__ = error
        sys.excepthook(type(another), another, another.__traceback__)


def call_and_report(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except BaseException as error:
        report(error)


def insist(function, *arguments):
    """Calls a function until Ctrl-C lets it come to its end: when it is called again it goes on. Then what has
    come is raised."""
    interruption = None
    while True:
        try:
            function(*arguments)
            break
        except KeyboardInterrupt as error:
            if interruption is not None or get_ident() != Main.ident:
                report(error)  # there is only one to be raised; and elsewhere it is nobody's Ctrl-C
            else:
                interruption = error
    if interruption is not None:
        raise interruption


def raise_interruption():
    """Ctrl-C that has come in a callback from C, which cannot raise it."""
    interruption, here.interruption = here.interruption, None
    if interruption is not None:
        raise interruption


class LoopThread:
    """What Python knows of one loop. The loop's wrapper keeps it; it does not keep the wrapper."""

    def __init__(self, loop):
        self.serial = next(_serials)
        self.generation = _generation
        self.pointer = native.pointer(loop)
        self.name = loop.get_name()
        self.reference = weakref.ref(loop)
        self.ident = None  # of the thread, while Python is attached to it
        self.native_id = None
        self.context = native.get_context(self.pointer)
        self.cancellable = None  # the loop's, once it is heeded
        self.cancelled_handler = 0
        self.ended = False
        self.keys = _count_keys()
        self.pending = {}  # what C has been given: number → record
        self.live = {}  # operations and coroutines that somebody may wait for: number → record
        self.teardowns = {}  # number → function
        self.inner = {}  # what send() has on the way: number → function
        self.holds = {}  # C's number → reason
        self.tasks = {}  # coroutines that run: number → record
        self.task_hold = 0
        self.running = None  # the record that runs now
        self.event_loop = None  # asyncio's
        self.adopted = None  # the threading.Thread of the thread
        self.refuses = False  # whatever C says
        self.pauser = None  # the thread that has the loop stand still
        self.n_own = 0  # pieces of work that nobody has asked for
        self.moments = 0  # that were spent in C, waiting for functions
        self.moments_in_vain = 0
        self.moments_refused = 0
        self.started = allocate_lock()
        self.started.acquire()
        self.over = allocate_lock()
        self.over.acquire()

    @property
    def forked(self):
        """Whether this is the loop of the process that this one was forked from."""
        return self.generation != _generation

    # Life

    def register(self):
        """Has Python told of the thread's beginning and end. False if it takes no more work."""
        _by_serial[self.serial] = self
        if not native.add_teardown(self.pointer, _detach_cb, self.serial, None):
            del _by_serial[self.serial]
            self.refuses = True
            if _is_of_parent(self.pointer):
                self.generation = None
            return False

        _by_context[self.context] = self
        if native.is_current(self.pointer):
            self.attach()
        else:
            self.n_own += native.post_full(self.pointer, FIRST, _attach_cb, self.serial, None)
        return True

    def attach(self):
        """On the loop's thread: has its thread state last."""
        if self.ident is not None:
            return

        native.ensure_thread_state()
        self.ident = get_ident()
        self.native_id = threading.get_native_id()
        _by_ident[self.ident] = self
        here.plain = False
        self.adopted = _adopt_thread(self.name)
        self.started.release()

    def detach(self):
        """On the loop's thread, the last that Python does there."""
        attached = self.ident is not None
        try:
            call_and_report(self.drop_all)
            if self.event_loop is not None:
                call_and_report(self.event_loop.wind_up)
            self.ended = True
            self.disregard()
        finally:
            _by_serial.pop(self.serial, None)
            _by_context.pop(self.context, None)
            if attached:
                _by_ident.pop(self.ident, None)
                _abandon_thread(self.ident, self.adopted)
            self.adopted = None
            self.ident = None  # the next thread may get it
            self.refuses = True
            self.over.release()
            if attached:
                native.release_thread_state(native.LOCKED)

    def heed(self):
        """Has Python told when others shut the loop down in CANCEL mode.

        Python's own shutdowns, and the end of the loop, tell everybody anyway. So that is for those who
        wait for long.
        """
        if self.cancelled_handler or self.ended or self.forked:
            return

        with _registering:
            loop = self.reference()
            if self.cancelled_handler or self.ended or loop is None:
                return
            self.cancellable = cancellable = loop.get_cancellable()
            self.cancelled_handler = native.signal_connect(
                native.pointer(cancellable), b'cancelled', _cancelled_cb, self.serial, None, 0)
        if cancellable.is_cancelled():
            self.note_cancelled()

    def disregard(self):
        with _registering:
            handler, self.cancelled_handler = self.cancelled_handler, 0
            cancellable, self.cancellable = self.cancellable, None
        if handler:
            native.signal_disconnect(native.pointer(cancellable), handler)

    def note_cancelled(self):
        if native.get_state(self.pointer) != RUNNING:
            self.drop_all()
            return

        # Not by a shutdown: as C's operations, Python's are cancelled, and waited for.
        for record in list(self.live.values()):
            if record.KIND == OPERATION:
                call_and_report(record.cancellable.cancel)

    def forget(self):
        """In a forked child, where the thread does not exist."""
        self.refuses = True
        self.ident = None
        for record in list(self.pending.values()):
            if record.KIND == COROUTINE:
                record.coro.close()

    # Work

    def refusal(self):
        if self.forked:
            return ForkedError(f'The loop "{self.name}" belongs to the process that this one was forked from')
        if Leaving.begun:
            return ClosedError(say('The loop "%s" takes no more work: Python is leaving', self.name))
        return ClosedError(say('The loop "%s" takes no more work', self.name))

    def offer(self, record, priority):
        """The number under which the loop has taken the record, or None."""
        check_priority(priority)
        key = next(self.keys)
        self.pending[key] = record
        try:
            if not self.refuses and native.post_full(self.pointer, priority, _run_cb, key, None):
                return key
        except BaseException:
            self.pending.pop(key, None)
            raise

        self.pending.pop(key, None)
        return None

    def run_record(self, record):
        outer, self.running = self.running, record
        try:
            record.run()
        except BaseException as error:
            report(error)
        finally:
            self.running = outer

    def add_teardown(self, record):
        key = next(self.keys)
        self.teardowns[key] = record
        if self.refuses or not native.add_teardown(self.pointer, _teardown_cb, key, None):
            del self.teardowns[key]
            raise self.refusal()

    def send(self, function):
        """Has a function run on the loop's thread, which something holds."""
        key = next(self.keys)
        self.inner[key] = function
        native.context_invoke(self.context, 0, _inner_cb, key, None)

    def hold(self, reason):
        """The number of a new hold."""
        number = 0 if self.refuses else native.hold(self.pointer, reason.encode(errors='replace'))
        if not number:
            raise self.refusal()

        self.holds[number] = reason
        # It may have been too late for whoever releases all.
        if self.refuses:
            self.release(number)
            raise self.refusal()
        return number

    def release(self, number):
        """False if it was released before."""
        if self.holds.pop(number, None) is None:
            return False

        if not self.forked:
            native.release(self.pointer, number)
        return True

    # The end

    def quit(self, mode):
        """While somebody has the loop."""
        if self.forked:
            return

        before = here.handling  # a child that is forked in a handler comes back with none
        here.handling += mode == CANCEL
        try:
            native.quit_loop(self.pointer, mode)
        finally:
            here.handling = before
            if mode == CANCEL:
                try:
                    self.drop_all()
                finally:
                    raise_interruption()

    def drop_all(self, only=None):
        """Tells everybody whose work has not started, or has not answered, that it is over. Ctrl-C that comes
        meanwhile is raised when that is done."""
        insist(self._take_and_drop, collections.deque(), only)

    def _take_and_drop(self, taken, only):
        # A record is taken and noted in one step, or Ctrl-C in between would lose it. Its waiter is told before
        # the next record is taken: a callback may wait for that one, and whoever takes it first tells its waiter.
        # The loop forgets a record's future when it finds the record taken.
        _drop_taken(taken)
        for key in list(self.live):
            record = self.live.get(key)
            if record is not None:
                noted = key, record, record.future
                taken.extend(zip([noted], map(self.live.pop, [key], [None])))
                _drop_taken(taken)
        for key in list(self.pending):
            record = self.pending.get(key)
            if record is not None and record.KIND not in (OPERATION, COROUTINE) and only in (None, record.KIND):
                noted = key, record, None
                taken.extend(zip([noted], map(self.pending.pop, [key], [None])))
                _drop_taken(taken)

    def leave(self):
        """When Python leaves: only functions that were accepted still run."""
        self.refuses = True
        self.drop_all(only=DELAYED)
        for number in list(self.holds):
            self.release(number)
        loop = self.reference()
        if loop is not None:
            self.quit(DRAIN)

    def has_python_work(self):
        return bool(self.pending) or self.running is not None or self.ident in sys._current_frames()

    def wait_for_thread(self, seconds):
        """Of a loop that nobody has any more."""
        if not self.over.acquire(timeout=seconds):
            return False

        self.over.release()
        if self.native_id is not None:
            _wait_for_native_thread(self.native_id)
        return True

    def wait_for_end(self):
        """When Python leaves. False if others keep the loop."""
        loop = self.reference()
        deadline = None
        while True:
            if loop is None:
                ended = self.wait_for_thread(SLICE_MSEC / 1000)
            else:
                ended = _wait_once(self.pointer)
            if ended:
                return True

            if self.has_python_work():
                deadline = None
            elif deadline is None:
                deadline = time.monotonic() + GRACE
                if loop is not None:
                    self.quit(CANCEL)
            elif time.monotonic() >= deadline:
                return False


def _drop_taken(taken):
    while taken:
        (key, record, future), taken_here = taken[0]
        if taken_here is not None and future is not None:
            _report_all_but_interruptions(future._end_as_closed)
            _report_all_but_interruptions(record.stop, key)
        elif taken_here is not None:
            _report_all_but_interruptions(record.drop, key)
        taken.popleft()


def _report_all_but_interruptions(function, *arguments):
    try:
        function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        report(error)


def _count_keys():
    """Numbers as long as a pointer, which they travel as."""
    if sys.maxsize > 2 ** 32:
        return itertools.count(1)
    return itertools.chain.from_iterable(itertools.repeat(range(1, 2 ** 32)))


FUNCTION, DELAYED, COROUTINE, OPERATION = 'function', 'delayed function', 'coroutine', 'operation'


def of(loop):
    """The Python half of a loop that is new to Python."""
    with _registering:
        thread = loop.__dict__.get('_thread')
        if thread is not None:
            return thread

        thread = _by_context.get(native.get_context(native.pointer(loop)))
        if thread is not None:
            # The loop has got another wrapper: somebody took a reference as the last one went.
            thread.reference = weakref.ref(loop)
            loop._thread = thread
            return thread

        thread = LoopThread(loop)
        if thread.register():
            loop._thread = thread
        return thread


def get_all():
    """The Python halves of all loops whose threads have not ended."""
    return list(_by_serial.values())


def starting():
    """The lock for whoever starts a loop."""
    return _starting


def of_calling_thread():
    """The loop whose thread this is, or None."""
    return _by_ident.get(get_ident())


def is_plain():
    """Whether nobody can wait for the calling thread, so that it may wait in Python for a loop."""
    if here.handling:
        return False

    plain = here.plain
    if plain is None:
        plain = True
        # A loop's thread has its context as its default one.
        if native.get_thread_default():
            loop = native.dup_current()
            if loop:
                native.object_unref(loop)
                plain = False
        here.plain = plain
    return plain


# C's callbacks

@native.callback(native.PostFunc)
def _attach_cb(serial):
    thread = _by_serial.get(serial)
    if thread is not None:
        thread.attach()


@native.callback(native.PostFunc)
def _detach_cb(serial):
    thread = _by_serial.get(serial)
    if thread is not None:
        thread.detach()


def _find_own():
    """The loop whose thread this is. Of one that was there before Python came the first piece of work
    may be here before what attaches Python."""
    thread = _by_ident.get(get_ident())
    if thread is None:
        thread = next(each for each in list(_by_serial.values()) if native.is_current(each.pointer))
        thread.attach()
    return thread


@native.callback(native.PostFunc)
def _run_cb(key):
    thread = _by_ident.get(get_ident()) or _find_own()
    record = thread.pending.pop(key, None)
    if record is not None:
        outer, thread.running = thread.running, record
        try:
            record.run()
        except BaseException as error:
            report(error)
        thread.running = outer


@native.callback(native.PostFunc)
def _teardown_cb(key):
    thread = _find_own()
    thread.run_record(thread.teardowns.pop(key))


@native.callback(native.InvokeFunc)
def _inner_cb(key):
    call_and_report(_find_own().inner.pop(key))
    return 0


@native.callback(native.CancelledFunc)
def _cancelled_cb(cancellable, serial):
    thread = _by_serial.get(serial)
    loop = thread.reference() if thread is not None else None
    if loop is None:
        return

    try:
        thread.note_cancelled()
    except KeyboardInterrupt as error:
        if here.handling:
            here.interruption = error
        else:
            report(error)


# threading.Thread

def _adopt_thread(name):
    """Has threading know the calling thread by its loop's name.

    Until Python 3.13 a thread that Python has not started has an object that a forked child of it
    cannot end with. So it gets one of those of threads that have been started.
    """
    if sys.version_info >= (3, 13):
        thread = threading.current_thread()
        thread.name = name
        return thread

    thread = threading.Thread(name=name, daemon=True)
    thread._set_ident()
    thread._set_native_id()
    thread._set_tstate_lock()
    thread._started.set()
    with threading._active_limbo_lock:
        threading._active[thread.ident] = thread
    return thread


def _abandon_thread(ident, adopted):
    with threading._active_limbo_lock:
        if threading._active.get(ident) is adopted:
            del threading._active[ident]


def _wait_for_native_thread(native_id):
    """Until the system has no such thread of this process, where it tells."""
    path = f'/proc/self/task/{native_id}'
    deadline = time.monotonic() + GRACE
    while os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.001)


# fork()

def _is_of_parent(pointer):
    """What C says of a loop that Python has not known before the fork."""
    try:
        check(native.wait, pointer, 0, None)
    except ForkedError:
        return True
    except Exception:
        pass  # it has not ended
    return False


def _forked():
    """In the child, whose only thread this is."""
    global _registering, _starting, _generation

    _generation += 1
    _registering = threading.RLock()
    _starting = threading.RLock()
    for thread in list(_by_serial.values()):
        thread.forget()
    for registry in _by_serial, _by_context, _by_ident:
        registry.clear()
    here.plain = None
    here.handling = 0
    Main.ident = get_ident()


os.register_at_fork(before=lambda: _starting.acquire(), after_in_parent=lambda: _starting.release(),
                    after_in_child=_forked)


# Leaving Python

def _wait_once(pointer):
    error = native.GErrorPointer()
    ended = native.wait(pointer, SLICE_MSEC, None, error)
    if error:
        native.error_free(error)
    return bool(ended)


def _leave():
    """Ends all loops, before Python does."""
    global _left

    Leaving.begun = True
    _left = 'interrupted'
    known = []
    while True:
        new = [thread for thread in list(_by_serial.values()) if thread not in known]
        if not new:
            break
        known += new
        for thread in new:
            thread.leave()
        for thread in new:
            if not thread.wait_for_end():
                native.park(thread.context)
    _left = None


def _leave_by_signal():
    """Something runs and does not return, and somebody has interrupted the wait for it: Python cannot
    end around it."""
    if _left != 'interrupted' or not _by_serial:
        return

    for stream in sys.stdout, sys.stderr:
        try:
            stream.flush()
        except Exception:
            pass
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


# The first to be registered is the last to be called.
atexit.register(_leave_by_signal)
try:
    threading._register_atexit(_leave)
except RuntimeError:
    Leaving.begun = True  # Python is leaving already
