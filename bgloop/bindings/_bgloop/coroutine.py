# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Coroutines on a loop: an event loop of asyncio's that lives on the loop's GMainContext.

Its selector's descriptor is a source of the context; the ready time of that source is the event loop's
next timer, or at once while it has something to call. When the source is ready, the event loop does
one round of what it would do in run_forever(), and never waits itself.
"""

import asyncio
import asyncio.events
import math
import selectors
import sys
from _thread import get_ident

from . import native
from . import thread as threads
from .errors import ClosedError
from .work import describe, without_own_frame

POLL_IN = 1  # G_IO_IN
NEVER, AT_ONCE = -1, 0
LATEST_USEC = 2 ** 62
PRIORITY = 0

# In a round, callbacks that are called as soon as possible come in the next one. So many follow at once,
# since each turn of the context costs more than they do; then other sources have their turn.
ROUNDS = 4


class _Selector(selectors.DefaultSelector):
    """The context waits, not this."""

    def select(self, timeout=None):
        return super().select(0)


def _get_ready_time(when):
    """A time of asyncio's, as C takes it: NEVER for what is too late for any clock, AT_ONCE for what is no
    number, as asyncio has it."""
    try:
        usec = when * 1e6
    except OverflowError:
        return NEVER
    if not usec > AT_ONCE:
        return AT_ONCE
    return math.ceil(usec) if usec < LATEST_USEC else NEVER


class EventLoop(asyncio.SelectorEventLoop):
    """Is there from the first coroutine to the end of the loop, and runs all the time."""

    def __init__(self, thread):
        try:
            super().__init__(_Selector())
        except BaseException:
            self._closed = True  # or its finalizer would close what is not there
            raise
        self._bg_thread = thread
        self._bg_in_round = False
        self._thread_id = get_ident()
        self._bg_source = native.fd_source_new(self._selector.fileno(), POLL_IN)
        native.source_set_callback(self._bg_source, _ready_cb, None, None)
        native.source_attach(self._bg_source, thread.context)

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        if not self._bg_in_round:
            native.source_set_ready_time(self._bg_source, AT_ONCE)
        return handle

    def call_at(self, when, callback, *args, context=None):
        handle = super().call_at(when, callback, *args, context=context)
        if not self._bg_in_round:
            self._bg_arm()
        return handle

    def _bg_arm(self):
        if self._ready:
            due = AT_ONCE
        elif self._scheduled:
            due = _get_ready_time(self._scheduled[0]._when)
        else:
            due = NEVER
        native.source_set_ready_time(self._bg_source, due)

    def bg_run(self):
        """Some rounds. Only what they call sees that the event loop runs."""
        if self._bg_in_round:
            return

        self._bg_in_round = True
        outer = asyncio.events._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio.events._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook,
                               finalizer=self._asyncgen_finalizer_hook)
        try:
            for _ in range(ROUNDS):
                self._bg_run_once()
                if not self._ready:
                    break
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio.events._set_running_loop(outer)
            self._bg_in_round = False
            self._bg_arm()

    def _bg_run_once(self):
        try:
            self._run_once()
        except BaseException as error:  # SystemExit comes through
            if not self._bg_is_taken(error):
                threads.report(error)

    def _bg_is_taken(self, error):
        """Whether it is how a coroutine has ended that somebody has the future of."""
        tasks = [record.task for record in self._bg_thread.tasks.values()]
        return any(task is not None and task.done() and not task.cancelled() and task.exception() is error
                   for task in tasks)

    # The end

    def wind_up(self):
        """What asyncio.run() does at its end. The context is iterated meanwhile, for Gio's operations."""
        if self.is_closed():
            return

        task = self.create_task(self._bg_end())
        while not task.done():
            native.context_iteration(self._bg_thread.context, True)
        if not task.cancelled() and task.exception() is not None:
            threads.report(task.exception())
        self._thread_id = None
        self.close()

    async def _bg_end(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and task.exception() is not None:
                self.call_exception_handler({
                    'message': 'unhandled exception during the end of the loop',
                    'exception': task.exception(),
                    'task': task,
                })
        await self.shutdown_asyncgens()
        await self.shutdown_default_executor()

    def close(self):
        """Refused while it runs, which is until its loop ends."""
        if self.is_closed():
            return

        super().close()
        native.source_destroy(self._bg_source)
        native.source_unref(self._bg_source)


@native.callback(native.FdFunc)
def _ready_cb(fd, condition, data):
    try:
        threads.of_calling_thread().event_loop.bg_run()
    except BaseException as error:
        threads.report(error)
    return 1


class _WindUp:
    """The teardown function: later ones, which may need the event loop, come before it."""

    KIND = threads.FUNCTION

    def __init__(self, event_loop):
        self.run = event_loop.wind_up

    def describe(self):
        return 'the end of asyncio'


def get_event_loop(thread):
    """On the loop's thread."""
    if thread.event_loop is None:
        thread.event_loop = EventLoop(thread)
        try:
            thread.add_teardown(_WindUp(thread.event_loop))
        except ClosedError:
            pass  # a shutdown in CANCEL mode has begun just now: it is wound up as the last thing
    return thread.event_loop


class Coroutine:
    """A coroutine that is to run, or runs, as a task."""

    __slots__ = 'thread', 'key', 'coro', 'future', 'context', 'loop', 'task'

    KIND = threads.COROUTINE

    def __init__(self, loop, thread, coro, future, context):
        self.loop = loop  # until it is done: so long the loop does not end by itself
        self.thread = thread
        self.coro = coro
        self.future = future
        self.context = context
        self.key = None
        self.task = None

    def describe(self):
        return describe(self.coro)

    def submit(self):
        """False if it was refused."""
        thread = self.thread
        thread.heed()
        self.key = self.future._key = key = next(thread.keys)
        thread.live[key] = thread.pending[key] = self
        if not thread.refuses and native.post_full(thread.pointer, PRIORITY, threads._run_cb, key, None):
            return True

        thread.live.pop(key, None)
        thread.pending.pop(key, None)
        return False

    def run(self):
        """Begins it, on the loop's thread."""
        thread = self.thread
        try:
            wanted = self.key in thread.live
            if wanted and not thread.task_hold:
                thread.task_hold = thread.hold('coroutines')
        except ClosedError:
            wanted = False  # a shutdown in CANCEL mode is about to drop it
        if not wanted:
            if thread.live.pop(self.key, None) is not None:
                self.future._end_as_closed()
            self.coro.close()
            self.forget()
            return

        try:
            event_loop = get_event_loop(thread)
            self.task = self.create_task(event_loop)
        except BaseException as error:  # there may be no descriptors
            self.coro.close()
            if thread.live.pop(self.key, None) is not None:
                self.future.set_exception(without_own_frame(error))
            self.release_hold()
            self.forget()
            return

        thread.tasks[self.key] = self
        self.task.add_done_callback(self.done)
        if self.key not in thread.live:
            self.task.cancel()
        event_loop.bg_run()

    def create_task(self, event_loop):
        if sys.version_info >= (3, 11):
            return event_loop.create_task(self.coro, context=self.context)
        return self.context.run(event_loop.create_task, self.coro)

    def done(self, task):
        thread, future = self.thread, self.future
        if thread.live.pop(self.key, None) is None:
            if not task.cancelled():
                task.exception()  # nobody wants it any more
        elif task.cancelled():
            future._end_as_cancelled()
        elif task.exception() is not None:
            future.set_exception(task.exception())
        else:
            future.set_result(task.result())

        thread.tasks.pop(self.key, None)
        self.release_hold()
        self.forget()

    def release_hold(self):
        thread = self.thread
        if not thread.tasks:
            hold, thread.task_hold = thread.task_hold, 0
            thread.release(hold)

    def forget(self):
        self.loop = self.coro = self.future = self.context = self.task = None

    def stop(self, key):
        """Nobody waits for it any more, whoever has taken it out of what is live."""
        if self.thread.pending.pop(key, None) is not None:
            self.coro.close()
            self.forget()
            return

        task = self.task
        if task is not None:
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:
                pass  # the event loop is closed, and the task with it

    def give_up(self, error):
        if self.thread.live.pop(self.key, None) is not None:
            self.future.set_exception(error)
            self.stop(self.key)
