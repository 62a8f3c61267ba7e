# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ctrl-C in everything that the main thread may wait in.

Each wait is one that would not end: what ends it is the signal, which another thread sends when the main
thread is in the function that waits.
"""

import asyncio
import concurrent.futures
import functools
import itertools
import os
import signal
import sys
import threading
import time
import unittest.mock
from _thread import allocate_lock

from _bgloop import thread as threads
from _bgloop import waiting
from util import HANG, Bg, Gate, Gio, GLib, LoopTestCase

DOORS = {'call', 'run', 'perform', 'flush', 'shutdown', 'result', 'exception'}
FILES = {Bg.Loop.call.__code__.co_filename, Bg.Future.result.__code__.co_filename}


class Source:
    """An operation that answers only when it is cancelled."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.begun = threading.Event()

    def work_async(self, cancellable, callback):
        context = GLib.MainContext.get_thread_default()

        def answer(*_):
            self.cancelled.set()
            callback(self, Gio.Task.new(None, None, None))

        def cancelled(*_):
            source = GLib.idle_source_new()
            source.set_callback(answer)
            source.attach(context)

        cancellable.connect(cancelled)
        self.begun.set()

    def work_finish(self, result):
        raise AssertionError('nobody wants it')


class Interrupt(LoopTestCase):
    def waits(self):
        """Whether the main thread is in one of the functions that wait."""
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None:
            if frame.f_code.co_name in DOORS and frame.f_code.co_filename in FILES:
                return True
            frame = frame.f_back
        return False

    def interrupt(self, wait, *arguments, ready=None, **keywords):
        """Has a function of the main thread interrupted, and asserts that it was."""
        over = threading.Event()

        def send():
            if ready is not None:
                assert ready.wait(HANG)
            while not self.waits():
                time.sleep(0.001)
            # Python itself may miss one that comes just before it waits for a lock.
            while not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                over.wait(0.5)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            with self.assertRaises(KeyboardInterrupt):
                wait(*arguments, **keywords)
        finally:
            self.ignore_more(over, thread)

    def ignore_more(self, over, thread):
        """Of several signals one may come late."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        over.set()
        thread.join(HANG)
        signal.signal(signal.SIGINT, handler)

    def test_loop_that_another_thread_has_paused(self):
        other = threading.Thread(target=Bg.test_pause, args=(self.loop,))
        other.start()
        other.join(HANG)
        self.interrupt(self.loop.call, self.fail)
        self.interrupt(self.loop.flush)
        Bg.test_resume(self.loop)

    def test_call_that_has_not_started_never_runs(self):
        gate = Gate(self.loop)
        seen = []
        for keywords in {}, {'timeout': HANG}, {'cancellable': Gio.Cancellable()}:
            self.interrupt(self.loop.call, seen.append, keywords, **keywords)
        gate.open()
        self.loop.flush()
        self.assertEqual(seen, [])

    def test_call_that_runs_goes_on(self):
        ended = threading.Event()
        gate = Gate()

        def work():
            gate()
            ended.set()

        self.interrupt(self.loop.call, work, ready=gate.entered)
        self.assertFalse(ended.is_set())
        gate.open()
        self.assertTrue(ended.wait(HANG))
        self.assertEqual(self.loop.call(int), 0)

    def test_run_cancels_the_coroutine(self):
        started, cancelled = threading.Event(), threading.Event()

        async def coroutine():
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        self.interrupt(self.loop.run, coroutine(), ready=started)
        self.assertTrue(cancelled.wait(HANG))

    def test_run_that_has_not_started_never_runs(self):
        gate = Gate(self.loop)

        async def coroutine():
            self.fail('it ran')

        coro = coroutine()
        self.interrupt(self.loop.run, coro)
        self.assertIsNone(coro.cr_frame)
        gate.open()

    def test_perform_cancels_the_operation(self):
        source = Source()
        self.interrupt(self.loop.perform, source.work_async, ready=source.begun)
        self.assertTrue(source.cancelled.wait(HANG))

    def test_flush(self):
        gate = Gate(self.loop)
        self.interrupt(self.loop.flush)
        self.interrupt(self.loop.flush, HANG)
        gate.open()
        self.loop.flush()

    def test_flush_that_somebody_else_waits_for(self):
        class Lock:
            """Interrupts who waits for it."""

            def __init__(self):
                self.lock = allocate_lock()

            def acquire(self):
                if self.lock.locked():
                    signal.raise_signal(signal.SIGINT)
                return self.lock.acquire()

            def release(self):
                self.lock.release()

        gate = Gate(self.loop)
        with unittest.mock.patch.object(threads, 'SLICE_MSEC', 1), \
                unittest.mock.patch.object(waiting, 'allocate_lock', Lock), self.assertRaises(KeyboardInterrupt):
            self.loop.flush()
        self.assertNotIn('bgloop flush', [thread.name for thread in threading.enumerate()])
        gate.open()

    def test_shutdown_goes_on_when_it_is_called_again(self):
        for cancel in False, True:
            loop = Bg.Loop('interrupted')
            gate = Gate(loop)
            self.interrupt(loop.shutdown, cancel_futures=cancel)
            self.interrupt(loop.shutdown, timeout=HANG)
            self.assertEqual(loop.get_state(), Bg.LoopState.STOPPING)
            gate.open()
            loop.shutdown()

    def test_future_is_left_alone(self):
        gate = Gate(self.loop)
        future = self.loop.submit(pow, 2, 5)
        for wait in future.result, future.exception:
            self.interrupt(wait)
            self.interrupt(wait, HANG)
        gate.open()
        self.assertEqual(future.result(), 32)

    def test_context_manager(self):
        gate = Gate()

        def use():
            with Bg.Loop('interrupted') as loop:
                loop.post(gate)
                gate.wait()
                loops.append(loop)

        loops = []
        self.interrupt(use, ready=gate.entered)
        gate.open()
        loops.pop().shutdown()

    def test_while_others_wait_too(self):
        gate = Gate(self.loop)
        results = []
        thread = threading.Thread(target=lambda: results.append(self.loop.call(pow, 2, 5)))
        thread.start()
        self.interrupt(self.loop.call, self.fail)
        gate.open()
        thread.join(HANG)
        self.assertEqual(results, [32])

    def test_shutdown_tells_all_before_it_is_interrupted(self):
        """Ctrl-C comes as one of several futures is cancelled, in a callback of it."""
        ends = (functools.partial(Bg.Loop.shutdown, cancel_futures=True),
                functools.partial(Bg.Loop.shutdown, cancel_futures=True, timeout=0),
                functools.partial(Bg.Loop.quit, mode=Bg.ShutdownMode.CANCEL))
        for end, index in itertools.product(ends, (0, 2)):
            loop = Bg.Loop('interrupted')
            gate = Gate(loop)
            futures = [loop.spawn(asyncio.sleep(HANG)), loop.spawn(asyncio.sleep(HANG)),
                       loop.submit(self.fail), loop.submit(self.fail)]
            futures[index].add_done_callback(lambda _: signal.raise_signal(signal.SIGINT))
            with self.assertRaises(KeyboardInterrupt):
                end(loop)
            self.assertEqual(concurrent.futures.wait(futures, timeout=0).not_done, set())
            gate.open()
            loop.shutdown()

    def test_cancelled_future_is_whole(self):
        gate = Gate(self.loop)
        future = self.loop.spawn(asyncio.sleep(HANG))
        called = []
        future.add_done_callback(lambda _: signal.raise_signal(signal.SIGINT))
        future.add_done_callback(called.append)
        with self.assertRaises(KeyboardInterrupt):
            future.cancel()
        self.assertEqual(called, [future])
        self.assertEqual(concurrent.futures.wait([future], timeout=0).not_done, set())
        gate.open()

    def test_whoever_waits_is_woken_all_the_same(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        with unittest.mock.patch.object(future._condition, 'notify_all', side_effect=[KeyboardInterrupt, None]) as wake:
            with self.assertRaises(KeyboardInterrupt):
                future.cancel()
        self.assertEqual(wake.call_count, 2)
        self.assertTrue(future.cancelled())
        gate.open()

    def test_of_several_the_first_is_raised(self):
        gate = Gate(self.loop)
        interruptions = [KeyboardInterrupt(i) for i in range(3)]
        future = self.loop.submit(self.fail)
        for each in interruptions:
            future.add_done_callback(unittest.mock.Mock(side_effect=each))
        reported = []
        with unittest.mock.patch('threading.excepthook', lambda args: reported.append(args.exc_value)), \
                self.assertRaises(KeyboardInterrupt) as caught:
            future.cancel()
        self.assertEqual([caught.exception, *reported], interruptions)
        gate.open()

    def test_handler_waits_itself(self):
        """While the main thread waits in the same way."""
        seen = []
        other = Bg.Loop('other')
        handler = signal.signal(signal.SIGALRM, lambda *_: seen.append(other.call(pow, 2, 5)))
        try:
            for _ in range(30):
                gate = Gate()
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                thread = threading.Thread(target=lambda: gate.entered.wait(HANG) and gate.open())
                thread.start()
                self.assertEqual(self.loop.call(lambda: (gate(), time.sleep(0.002), 7)[-1]), 7)
                thread.join()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            other.shutdown()
        self.assertEqual(set(seen), {32})

    def test_what_a_handler_raises_is_as_it_was(self):
        class Late(TimeoutError):
            pass

        def late(*_):
            raise Late('my own')

        gate = Gate(self.loop)
        future = self.loop.submit(int)
        handler = signal.signal(signal.SIGALRM, late)
        try:
            for wait, timeout in itertools.product((future.result, future.exception), (None, HANG)):
                signal.setitimer(signal.ITIMER_REAL, 0.01, 0.1)
                with self.assertRaisesRegex(Late, 'my own'):
                    wait(timeout)
                signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            gate.open()

    def test_other_signals_have_their_handlers_run(self):
        seen = []
        gate = Gate(self.loop)
        handler = signal.signal(signal.SIGUSR1, lambda *_: (seen.append(1), gate.open()))
        try:
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            self.assertEqual(self.loop.call(int), 0)
            timer.join()
        finally:
            signal.signal(signal.SIGUSR1, handler)
        self.assertEqual(seen, [1])
