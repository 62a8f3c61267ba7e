# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Functions: call, post, submit, map, call_later, and their futures."""

import asyncio
import concurrent.futures
import contextvars
import ctypes
import functools
import gc
import io
import math
import random
import sys
import threading
import time
import traceback
import unittest.mock
import weakref

from _bgloop import native, waiting
from _bgloop import work as work_module
from _bgloop.errors import check
from util import HANG, Bg, Gate, Gio, GLib, LoopTestCase, scaled

variable = contextvars.ContextVar('variable', default='nobody')


class Failure(Exception):
    pass


def fail_deep(error):
    def inner():
        raise error

    inner()


def in_threads(n, function, *arguments):
    threads = [threading.Thread(target=function, args=arguments) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()


def in_thread(function, *arguments, **keywords):
    """What a function returns or raises in a thread that is neither the main one nor a loop's."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **keywords).result(HANG)


class Call(LoopTestCase):
    def test_returns_what_the_function_returns(self):
        value = object()
        self.assertIs(self.loop.call(lambda: value), value)
        self.assertIs(in_thread(self.loop.call, lambda: value), value)
        self.assertIsNone(self.loop.call(lambda: None))

    def test_arguments_reach_the_function_as_they_were_given(self):
        given = [], {}, object()

        def work(*args, **kwargs):
            return args, kwargs

        args, kwargs = self.loop.call(work, *given, fn=given[0], self=given[1])
        for mine, theirs in zip(given, args):
            self.assertIs(mine, theirs)
        self.assertIs(kwargs['fn'], given[0])
        self.assertIs(kwargs['self'], given[1])

    def test_raises_what_the_function_raises(self):
        for error in (Failure('text'), KeyError(1), StopIteration(3), SystemExit(4), KeyboardInterrupt(),
                      GeneratorExit(), asyncio.CancelledError(), concurrent.futures.TimeoutError(),
                      GLib.Error('message', 'some-quark', 7), TimeoutError('its own'), BaseException(5)):
            for call in self.loop.call, functools.partial(in_thread, self.loop.call):
                with self.subTest(error=error), self.assertRaises(type(error)) as caught:
                    call(fail_deep, error)
                self.assertIs(caught.exception, error)

    def test_traceback_goes_into_the_function(self):
        try:
            self.loop.call(fail_deep, Failure())
        except Failure as error:
            names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        self.assertEqual(names, ['test_traceback_goes_into_the_function', 'call', 'fail_deep', 'inner'])

    def test_leaves_no_cycle(self):
        class Data:
            pass

        def work(data):
            return Data()

        def fail(data):
            raise Failure

        gc.collect()
        gc.disable()
        try:
            for call in self.loop.call, functools.partial(in_thread, self.loop.call):
                data = Data()
                gone = weakref.ref(data)
                result = weakref.ref(call(work, data))
                del data
                self.assertIsNone(result())
                self.assertIsNone(gone())

                data = Data()
                gone = weakref.ref(data)
                try:
                    call(fail, data)
                except Failure:
                    pass
                del data
                self.assertIsNone(gone())
        finally:
            gc.enable()

    def test_is_a_plain_call_on_the_loops_own_thread(self):
        def outer():
            variable.set('outer')
            result = self.loop.call(inner, 1)
            return result, variable.get(), threading.get_ident()

        def inner(value):
            variable.set('inner')
            return value, threading.get_ident()

        (value, inner_ident), name, outer_ident = self.loop.call(outer)
        self.assertEqual((value, name), (1, 'inner'))
        self.assertEqual(inner_ident, outer_ident)
        self.loop.quit()

    def test_own_thread_works_while_stopping(self):
        seen = []
        gate = Gate(self.loop)
        self.loop.post(lambda: seen.append(self.loop.call(int)))
        self.loop.quit()
        gate.open()
        self.loop.shutdown()
        self.assertEqual(seen, [0])

    def test_sees_the_callers_context(self):
        variable.set('caller')

        def work():
            seen = variable.get()
            variable.set('loop')
            return seen

        self.assertEqual(self.loop.call(work), 'caller')
        self.assertEqual(variable.get(), 'caller')

    def test_its_outcome_is_there_when_its_waiter_wakes(self):
        seen, lock = [], unittest.mock.Mock()
        for end, outcome in (work_module.Call.run, waiting.DONE), (lambda call: call.drop(0), waiting.CLOSED):
            call = work_module.Call(int, (), {}, contextvars.copy_context(), lock, None, None)
            lock.release = lambda: seen.append((call.outcome, call.value, call.fn))
            end(call)
            self.assertEqual(seen.pop(), (outcome, 0 if outcome is waiting.DONE else None, None))

    def test_deadline_before_the_start(self):
        gate = Gate(self.loop)
        for call in self.loop.call, functools.partial(in_thread, self.loop.call):
            for limit in 0, 0.001, 0.02:
                with self.assertRaises(TimeoutError) as caught:
                    call(self.fail_if_called(), timeout=limit)
                self.assertIn('fail_if_called', str(caught.exception))
                self.assertIn('running', str(caught.exception))
                self.assertIn('Gate', str(caught.exception))
        gate.open()
        self.loop.flush()

    def fail_if_called(self):
        def work():
            self.fail('it ran')

        return work

    def test_any_callable_has_a_name(self):
        class Odd:
            def __init__(self, **attributes):
                self.__dict__.update(attributes)

            def __call__(self):
                return work()

        class Raises(Odd):
            def __getattr__(self, name):
                raise Failure(name)

        itself = Odd()
        itself.func = itself
        for fn in unittest.mock.Mock(side_effect=lambda: work()), itself, Odd(__qualname__=1, __name__=[]), Raises():
            work = int
            self.assertEqual(self.loop.call(fn, timeout=HANG), 0)
            work = Gate()
            self.loop.post(fn)
            work.wait()
            with self.assertRaisesRegex(TimeoutError, f'running .*{type(fn).__name__} for'):
                self.loop.call(fn, timeout=0.001)
            work.open()
            self.loop.flush()

    def test_deadline_does_not_cut_off_what_runs(self):
        for call in self.loop.call, functools.partial(in_thread, self.loop.call):
            # What has not begun in time, as the machine is busy, is tried again.
            limit, started = 0.03, threading.Event()

            def work():
                started.set()
                threading.Event().wait(1.5 * limit)
                return 42

            while not started.is_set():
                try:
                    self.assertEqual(call(work, timeout=limit), 42)
                except TimeoutError:
                    self.assertFalse(started.is_set())
                    limit *= 2

    def test_cancelled_before(self):
        cancellable = Gio.Cancellable()
        cancellable.cancel()
        for call in self.loop.call, functools.partial(in_thread, self.loop.call):
            with self.assertRaises(GLib.Error) as caught:
                call(self.fail, cancellable=cancellable)
            self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))

    def test_cancelled_before_the_start(self):
        gate = Gate(self.loop)
        for call in self.loop.call, functools.partial(in_thread, self.loop.call):
            cancellable = Gio.Cancellable()
            timer = threading.Timer(0.01, cancellable.cancel)
            timer.start()
            with self.assertRaises(GLib.Error) as caught:
                call(self.fail_if_called(), cancellable=cancellable)
            self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))
            timer.join()
        gate.open()
        self.loop.flush()

    def test_cancelled_before_it_is_listened_for(self):
        gate, cancellable = Gate(self.loop), Gio.Cancellable()
        with unittest.mock.patch.object(waiting, 'wait_a_moment', lambda _: cancellable.cancel()), \
                self.assertRaises(GLib.Error) as caught:
            self.loop.call(self.fail, cancellable=cancellable)
        self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))
        gate.open()

    def test_over_before_anybody_sees_it(self):
        """It has its turn before its waiter looks for the first time."""
        def moment(thread):
            cancellable.cancel()
            gate.open()
            self.loop.flush()

        seen = []
        gate, cancellable = Gate(self.loop), Gio.Cancellable()
        with unittest.mock.patch.object(waiting, 'wait_a_moment', moment), self.assertRaises(GLib.Error) as caught:
            self.loop.call(seen.append, 1, cancellable=cancellable)
        self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))

        with unittest.mock.patch('_bgloop.work.monotonic', lambda: math.inf), self.assertRaises(TimeoutError):
            self.loop.call(seen.append, 2, timeout=HANG)
        self.assertEqual(seen, [])

    def test_cancelled_while_it_runs(self):
        for call in self.loop.call, functools.partial(in_thread, self.loop.call):
            cancellable = Gio.Cancellable()

            def work():
                cancellable.cancel()
                return 42

            self.assertEqual(call(work, cancellable=cancellable), 42)

    def test_cancelled_in_a_handler_of_the_same_cancellable(self):
        cancellable = Gio.Cancellable()
        errors = []

        def handler(*_):
            try:
                self.loop.call(self.fail, cancellable=cancellable)
            except GLib.Error as error:
                errors.append(error.code)

        cancellable.connect(handler)
        cancellable.cancel()
        self.assertEqual(errors, [Gio.IOErrorEnum.CANCELLED])

    def test_shutdown_in_cancel_mode_wakes_waiters(self):
        gate = Gate(self.loop)
        errors = []

        def wait():
            try:
                self.loop.call(self.fail)
            except Bg.ClosedError as error:
                errors.append(error)

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        while self.loop.get_stats().queued < 3:
            pass
        self.loop.quit(Bg.ShutdownMode.CANCEL)
        for thread in threads:
            thread.join(HANG)
        self.assertEqual(len(errors), 3)
        gate.open()

    def test_errors_of_c_are_freed(self):
        gate = Gate(self.loop)
        with unittest.mock.patch.object(native, 'error_free', wraps=native.error_free) as free:
            for n in range(1, 4):
                with self.assertRaises(TimeoutError):
                    in_thread(self.loop.flush, 0)
                self.assertEqual(free.call_count, n)
        gate.open()

    def test_circles_are_refused(self):
        with Bg.Loop('other') as other:
            def outer():
                return other.call(lambda: self.loop.call(self.fail))

            with self.assertRaises(Bg.WouldDeadlockError) as caught:
                self.loop.call(outer)
            self.assertIn('other', str(caught.exception))
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(lambda: other.call(self.loop.flush))
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(lambda: other.call(self.loop.shutdown))
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(lambda: other.call(lambda: self.loop.submit(int).result()))
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(lambda: other.submit(lambda: self.loop.call(self.fail)).result())
            self.assertEqual(self.loop.call(other.call, int), 0)

    def test_from_many_threads(self):
        counts = []

        def work():
            for i in range(scaled(300)):
                if self.loop.call(lambda x: x + 1, i) != i + 1:
                    return
            counts.append(1)

        in_threads(4, work)
        self.assertEqual(len(counts), 4)

    def test_priority(self):
        seen = []
        gate = Gate(self.loop)
        self.loop.post(seen.append, 'default')
        thread = threading.Thread(target=self.loop.call, args=(seen.append, 'high'),
                                  kwargs={'priority': GLib.PRIORITY_HIGH})
        thread.start()
        while self.loop.get_stats().queued < 2:
            pass
        gate.open()
        thread.join(HANG)
        self.loop.flush()
        self.assertEqual(seen, ['high', 'default'])


class Post(LoopTestCase):
    def test_what_is_no_priority_is_refused(self):
        for door in self.loop.post, self.loop.call, functools.partial(in_thread, self.loop.call):
            with self.assertRaises((TypeError, ctypes.ArgumentError)):
                door(int, priority='high')
        self.assertEqual(self.loop._thread.pending, {})

    def test_in_order_over_all_doors(self):
        seen = []
        gate = Gate(self.loop)
        expected = []
        for i in range(200):
            door = random.choice(['post', 'submit', 'raw post', 'spawn'])
            expected.append(i)
            if door == 'post':
                self.loop.post(seen.append, i)
            elif door == 'submit':
                self.loop.submit(seen.append, i)
            elif door == 'raw post':
                self.loop.post_full(GLib.PRIORITY_DEFAULT, seen.append, i)
            else:
                async def coroutine(i):
                    seen.append(i)

                self.loop.spawn(coroutine(i))
        gate.open()
        self.loop.flush()
        self.assertEqual(seen, expected)

    def test_never_runs_in_the_caller(self):
        seen = []

        def work():
            self.assertTrue(self.loop.post(seen.append, 'later'))
            seen.append('first')

        self.loop.call(work)
        self.loop.flush()
        self.assertEqual(seen, ['first', 'later'])

    def test_does_not_see_the_callers_context(self):
        variable.set('caller')
        seen = []
        self.loop.post(lambda: seen.append(variable.get()))
        self.loop.flush()
        self.assertEqual(seen, ['nobody'])
        self.assertEqual(self.loop.submit(variable.get).result(), 'nobody')

    def test_arguments_and_priority(self):
        seen = []
        gate = Gate(self.loop)
        self.loop.post(lambda *args, **kwargs: seen.append((args, kwargs)), 1, 2, x=3)
        self.loop.post(seen.append, 'high', priority=GLib.PRIORITY_HIGH)
        gate.open()
        self.loop.flush()
        self.assertEqual(seen, ['high', ((1, 2), {'x': 3})])

    def test_priorities_have_32_bits(self):
        for priority in 2**31, -2**31 - 1, 10**12:
            for door in self.loop.post, self.loop.call:
                with self.assertRaises(OverflowError):
                    door(self.fail, priority=priority)
        self.assertEqual(self.loop.call(int, priority=2**31 - 1), 0)
        self.assertEqual(self.loop.call(int, priority=-2**31), 0)

    def test_exceptions_go_to_the_hook_and_the_loop_goes_on(self):
        seen = []
        with unittest.mock.patch('threading.excepthook', seen.append):
            for error in Failure(), SystemExit(3), KeyboardInterrupt():
                self.loop.post(fail_deep, error)
                self.loop.call_later(0, fail_deep, error)
            self.assertEqual(self.loop.call(int), 0)
            self.loop.add_teardown(fail_deep, Failure('teardown'))
            thread = self.loop.call(threading.current_thread)
            while len(seen) < 6:
                self.loop.flush()
            self.loop.shutdown()
        self.assertEqual(len(seen), 7)
        for hooked in seen:
            self.assertIs(hooked.thread, thread)
            self.assertIs(hooked.exc_type, type(hooked.exc_value))
            self.assertEqual(traceback.extract_tb(hooked.exc_traceback)[0].name, 'fail_deep')
        self.assertEqual(str(seen[-1].exc_value), 'teardown')

    def test_hook_that_fails_is_reported(self):
        def hook(_):
            raise Failure('the hook')

        with unittest.mock.patch('threading.excepthook', hook), \
                unittest.mock.patch('sys.stderr', io.StringIO()) as stderr:
            self.loop.post(fail_deep, Failure('the function'))
            self.loop.flush()
        self.assertIn('the hook', stderr.getvalue())
        self.assertIn('the function', stderr.getvalue())
        self.assertEqual(self.loop.call(int), 0)

    def test_frees_what_it_was_given(self):
        class Data:
            pass

        gone = []
        for post in (self.loop.post, self.loop.submit, functools.partial(self.loop.call_later, 0),
                     functools.partial(self.loop.call_later, 1000), self.loop.add_teardown):
            data = Data()
            gone.append(weakref.ref(data))
            post(lambda data: None, data)
        del data
        self.loop.shutdown()
        self.assertEqual([each() for each in gone], [None] * 5)

    def test_in_a_finalizer(self):
        """An allocation within the loop's own functions may collect garbage, and so post."""
        seen = []

        class Poster:
            def __del__(poster):
                self.loop.post(seen.append, 1)

        threshold = gc.get_threshold()
        gc.set_threshold(3)
        try:
            for _ in range(scaled(500)):
                cycle = [Poster()]
                cycle.append(cycle)
                del cycle
                self.loop.submit(int)
                self.loop.call(int)
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        self.loop.flush()
        self.assertEqual(len(seen), scaled(500))


class Submit(LoopTestCase):
    def test_result_and_exception(self):
        value, error = object(), Failure()
        self.assertIs(self.loop.submit(lambda: value).result(HANG), value)
        future = self.loop.submit(fail_deep, error)
        self.assertIs(future.exception(HANG), error)
        with self.assertRaises(Failure) as caught:
            future.result()
        self.assertIs(caught.exception, error)
        self.assertIsInstance(future, concurrent.futures.Future)

    def test_base_exceptions_are_the_futures(self):
        for error in SystemExit(1), KeyboardInterrupt(), GeneratorExit():
            self.assertIs(self.loop.submit(fail_deep, error).exception(), error)
        self.assertEqual(self.loop.call(int), 0)

    def test_states(self):
        gate = Gate()
        running = self.loop.submit(gate)
        waiting = self.loop.submit(int)
        gate.wait()
        self.assertTrue(running.running())
        self.assertFalse(running.cancel())
        self.assertFalse(waiting.running() or waiting.done())
        gate.open()
        self.assertEqual(waiting.result(), 0)
        self.assertTrue(running.done() and waiting.done())
        self.assertFalse(waiting.cancel())

    def test_cancelled_before_it_starts_it_never_runs(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        threads = []
        future.add_done_callback(lambda _: threads.append(threading.current_thread()))
        self.assertTrue(future.cancel())
        self.assertTrue(future.cancel())
        self.assertTrue(future.cancelled() and future.done())
        self.assertEqual(threads, [threading.current_thread()])
        # Others see it at once, though the loop is busy.
        self.assertEqual(concurrent.futures.wait([future], timeout=0).not_done, set())
        gate.open()
        with self.assertRaises(concurrent.futures.CancelledError):
            future.result()

    def test_callbacks_of_what_is_cancelled_come_in_order(self):
        seen = []
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        for i in range(3):
            future.add_done_callback(lambda _, i=i: seen.append(i))
        self.assertTrue(future.cancel())
        self.assertEqual(seen, [0, 1, 2])
        gate.open()

    def test_callbacks_run_on_the_loops_thread(self):
        gate = Gate(self.loop)
        future = self.loop.submit(int)
        threads = []
        future.add_done_callback(lambda _: threads.append(threading.current_thread()))
        gate.open()
        future.result()
        self.assertEqual(self.loop.call(lambda: list(threads)), [self.loop.call(threading.current_thread)])

    def test_wait_and_as_completed(self):
        futures = [self.loop.submit(pow, 2, i) for i in range(20)]
        done, not_done = concurrent.futures.wait(futures, HANG)
        self.assertEqual(not_done, set())
        self.assertEqual(sorted(each.result() for each in concurrent.futures.as_completed(futures)),
                         [2 ** i for i in range(20)])

    def test_timeout(self):
        gate = Gate(self.loop)
        future = self.loop.submit(int)
        for wait in future.result, future.exception:
            with self.assertRaises(concurrent.futures.TimeoutError):
                wait(0.001)
            with self.assertRaises(concurrent.futures.TimeoutError):
                in_thread(wait, 0.001)
        gate.open()
        self.assertEqual(future.result(), 0)

    def test_who_looks_waits_for_who_completes_it(self):
        future = Bg.Future()
        future._thread = self.loop._thread
        future._first = work_module._COMPLETES  # and has not yet said that it is done
        with unittest.mock.patch.object(work_module, 'sleep', lambda _: setattr(future, '_state', work_module.FINISHED)):
            self.assertTrue(future._condition)
        self.assertTrue(future.done())

    def test_looked_at_while_it_completes(self):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        seen = []
        looks = [lambda future: future.result(HANG), lambda future: future.exception(HANG),
                 lambda future: concurrent.futures.wait([future], HANG).done.remove(future),
                 lambda future: next(concurrent.futures.as_completed([future], HANG)),
                 lambda future: future.add_done_callback(lambda _: seen.append(1)),
                 lambda future: future.cancelled() or future.running() or future.done()]

        def work():
            for i in range(scaled(400)):
                future = self.loop.submit(pow, i, 2)
                for look in random.sample(looks, len(looks)):
                    look(future)
                assert future.result(0) == i * i and future.done()

        try:
            in_threads(3, work)
        finally:
            sys.setswitchinterval(interval)
        self.loop.flush()
        self.assertEqual(len(seen), 3 * scaled(400))

    def test_result_on_the_loops_own_thread_would_deadlock(self):
        def work():
            future = self.loop.submit(int)
            for wait in future.result, future.exception:
                with self.assertRaises(Bg.WouldDeadlockError):
                    wait()
            return future

        future = self.loop.call(work)
        self.assertEqual(future.result(), 0)
        self.assertEqual(self.loop.call(future.result), 0)

    def test_result_that_is_late_says_what_is_in_the_way(self):
        gate = Gate(self.loop)
        future = self.loop.submit(int)
        for wait in future.result, future.exception:
            with self.assertRaisesRegex(concurrent.futures.TimeoutError, f'{wait.__name__}\\(\\) on the loop .*'
                                        ' did not end within 1 ms: running .*Gate for'):
                wait(0.001)
        gate.open()
        self.assertEqual(future.result(), 0)

    def test_result_that_is_an_error_of_that_kind_is_as_it_was(self):
        error = concurrent.futures.TimeoutError('my own')
        error.__cause__ = Failure()
        future = self.loop.submit(fail_deep, error)
        for timeout in None, HANG:
            with self.assertRaises(concurrent.futures.TimeoutError) as caught:
                future.result(timeout)
            self.assertIs(caught.exception, error)
            self.assertIsInstance(error.__cause__, Failure)

    def test_callbacks_of_what_a_shutdown_cancels(self):
        """They may wait for each other's futures, and raise anything."""
        for kind in ('submitted', 'coroutines'):
            loop = Bg.Loop(kind)
            gate = Gate(loop)
            give = loop.submit if kind == 'submitted' else lambda _: loop.spawn(asyncio.sleep(HANG))
            first, second, third = give(int), give(int), give(int)
            seen = []

            def called(_):
                with self.assertRaises(concurrent.futures.CancelledError):
                    second.result(HANG)
                seen.append(third.cancel())
                raise SystemExit

            first.add_done_callback(called)
            with unittest.mock.patch('threading.excepthook') as hook:
                threading.Timer(0.02, gate.open).start()
                loop.shutdown(cancel_futures=True)
            self.assertEqual(hook.call_count, 1)
            self.assertEqual(seen, [True])
            self.assertEqual(concurrent.futures.wait([first, second, third], timeout=0).not_done, set())

    def test_result_on_another_loops_thread(self):
        gate = Gate(self.loop)
        future = self.loop.submit(pow, 2, 5)
        with Bg.Loop('other') as other:
            waiter = other.submit(future.result)
            with self.assertRaises(concurrent.futures.TimeoutError):
                waiter.result(0.001)
            gate.open()
            self.assertEqual(waiter.result(), 32)
            self.assertIsNone(other.call(future.exception))

    def test_wait_on_another_loops_thread_that_was_given_up_as_it_begins(self):
        thread = self.loop._thread
        native.object_unref(check(native.perform_operation, thread.pointer, 0, HANG * 1000, waiting._wait_cb,
                                  next(thread.keys), None))
        self.loop.shutdown(timeout=HANG)

    def test_result_on_another_loops_thread_while_this_one_drains(self):
        gate = Gate(self.loop)
        future = self.loop.submit(pow, 2, 5)
        self.loop.quit()
        with Bg.Loop('other') as other:
            waiter = other.submit(future.result)
            gate.open()
            self.assertEqual(waiter.result(), 32)

    def test_from_asyncio(self):
        async def main():
            event_loop = asyncio.get_running_loop()
            return (await asyncio.wrap_future(self.loop.submit(pow, 2, 5)),
                    await event_loop.run_in_executor(self.loop, pow, 2, 6))

        self.assertEqual(asyncio.run(main()), (32, 64))

    def test_a_shutdown_leaves_none_pending(self):
        for cancel in False, True:
            with Bg.Loop('many') as loop:
                gate = Gate(loop)
                futures = [loop.submit(int) for _ in range(50)]
                loop.shutdown(wait=False, cancel_futures=cancel)
                gate.open()
            self.assertTrue(all(each.done() for each in futures))
            self.assertEqual({each.cancelled() for each in futures}, {cancel})

    def test_races_with_cancellation(self):
        for _ in range(scaled(200)):
            ran = []
            future = self.loop.submit(ran.append, 1)
            if future.cancel():
                self.assertTrue(future.cancelled())
                self.loop.flush()
                self.assertEqual(ran, [])
            else:
                future.result()
                self.assertEqual(ran, [1])

    def test_races_with_a_shutdown(self):
        for i in range(scaled(60)):
            loop = Bg.Loop('racing')
            futures = []

            def submit():
                try:
                    while True:
                        futures.append(loop.submit(int))
                except Bg.ClosedError:
                    pass

            thread = threading.Thread(target=submit)
            thread.start()
            while not futures:
                pass
            loop.shutdown(cancel_futures=bool(i % 2))
            thread.join(HANG)
            self.assertTrue(all(each.done() for each in futures))
            if not i % 2:
                self.assertFalse(any(each.cancelled() for each in futures))

    def test_map(self):
        self.assertEqual(list(self.loop.map(pow, range(5), range(5))), [pow(i, i) for i in range(5)])
        self.assertEqual(list(self.loop.map(pow, range(5), range(5), chunksize=3, timeout=HANG)),
                         [pow(i, i) for i in range(5)])
        gate = Gate(self.loop)
        for limit in 0, 0.001:
            with self.assertRaises(concurrent.futures.TimeoutError):
                list(self.loop.map(int, [1], timeout=limit))
        with Bg.Loop('asks') as other, self.assertRaises(concurrent.futures.TimeoutError):
            other.call(list, self.loop.map(int, [1], timeout=0))
        gate.open()

    def test_wrong_limits(self):
        gate = Gate(self.loop)
        future, ran = self.loop.submit(int), []
        wrong = -1, -0.001, math.nan

        def check():
            for limit in wrong:
                for door in future.result, future.exception:
                    with self.assertRaises(ValueError):
                        door(limit)

        check()
        in_threads(1, check)
        for limit in wrong:
            with self.assertRaises(ValueError):
                self.loop.map(ran.append, [1], timeout=limit)
        gate.open()
        self.assertEqual(future.result(), 0)
        check()
        self.loop.flush()
        self.assertEqual(ran, [])

    def test_callbacks_that_fail_do_no_harm(self):
        def fail(_):
            raise SystemExit(1)

        seen = []
        with unittest.mock.patch('threading.excepthook', seen.append):
            gate = Gate(self.loop)
            future = self.loop.submit(int)
            future.add_done_callback(fail)
            gate.open()
            self.assertEqual(future.result(), 0)
            self.assertEqual(self.loop.call(int), 0)
        self.assertEqual([each.exc_type for each in seen], [SystemExit])


class CallLater(LoopTestCase):
    def test_runs_in_the_order_of_time(self):
        took = math.inf
        while took >= 0.02:  # if that much time is between the two, they may come the other way round
            seen = []
            done = threading.Event()
            begin = time.monotonic()
            self.loop.call_later(0.03, lambda *args, **kwargs: (seen.append((args, kwargs)), done.set()), 1, x=2)
            self.loop.call_later(0.01, seen.append, 'first')
            took = time.monotonic() - begin
            self.assertTrue(done.wait(HANG))
        self.assertEqual(seen, ['first', ((1,), {'x': 2})])

    def test_cancel(self):
        handle = self.loop.call_later(0.001, self.fail)
        gate = Gate()
        self.loop.post(gate)
        if handle.cancel():
            self.assertFalse(handle.cancel())
        gate.open()

        handle = self.loop.call_later(1000, self.fail)
        cancelled = self.loop.get_stats().cancelled
        self.assertIn('delayed', self.loop.describe())
        self.assertTrue(handle.cancel())
        self.assertFalse(handle.cancel())
        self.assertNotIn('delayed', self.loop.describe())
        self.assertEqual(self.loop.get_stats().cancelled, cancelled + 1)

        done = threading.Event()
        handle = self.loop.call_later(0, done.set)
        self.assertTrue(done.wait(HANG))
        self.assertFalse(handle.cancel())

    def test_what_is_not_due_does_not_keep_the_loop(self):
        handle = self.loop.call_later(1000, self.fail)
        self.loop.shutdown()
        self.assertFalse(handle.cancel())

    def test_does_not_keep_the_object(self):
        loop = Bg.Loop('dropped')
        handle = loop.call_later(1000, self.fail)
        reference = weakref.ref(loop)
        del loop
        self.assertIsNone(reference())
        handle.cancel()

    def test_what_is_cancelled_is_freed(self):
        class Data:
            pass

        data = Data()
        gone = weakref.ref(data)
        handle = self.loop.call_later(1000, lambda data: None, data)
        del data
        handle.cancel()
        self.assertIsNone(gone())

    def test_wrong_delays(self):
        for wrong in -1, math.nan:
            with self.assertRaises(ValueError):
                self.loop.call_later(wrong, int)


class Mixed(LoopTestCase):
    def test_everything_from_many_threads_at_both_ends(self):
        """Each piece of work has exactly one outcome, whatever the end."""
        for cancel in False, True:
            loop = Bg.Loop('mixed')
            lock = threading.Lock()
            ran, told, given = [0], [0], [0]

            def work():
                with lock:
                    ran[0] += 1

            async def coroutine():
                await asyncio.sleep(0)
                work()

            def outcome(future):
                if future.cancelled():
                    with lock:
                        told[0] += 1

            def give():
                try:
                    for i in range(scaled(100)):
                        for door in (lambda: loop.call(work), lambda: loop.submit(work),
                                     lambda: loop.spawn(coroutine()), lambda: loop.run(coroutine())):
                            future = door()
                            if future is not None:
                                future.add_done_callback(outcome)
                            with lock:
                                given[0] += 1
                except Bg.ClosedError:
                    pass

            threads = [threading.Thread(target=give) for _ in range(3)]
            for thread in threads:
                thread.start()
            while given[0] < scaled(100):
                loop.call(int)
            loop.shutdown(cancel_futures=cancel, timeout=HANG)
            for thread in threads:
                thread.join(HANG)
                self.assertFalse(thread.is_alive())
            if cancel:
                # A coroutine that was cancelled may have done its work before.
                self.assertGreaterEqual(ran[0] + told[0], given[0])
            else:
                self.assertEqual((ran[0], told[0]), (given[0], 0))

    def test_the_loop_is_faster_than_who_hands_over(self):
        """What is handed over has run before the door hears that it was taken."""
        def at_once(hand_over):
            def wait(*arguments):
                taken = hand_over(*arguments)
                while 'delayed' in self.loop.describe():
                    pass
                check(native.flush, self.loop._thread.pointer, -1, None)
                return taken

            return wait

        class Source:
            def work_async(self, cancellable, callback):
                seen.append('operation')

        async def coroutine():
            seen.append('coroutine')

        seen = []
        with unittest.mock.patch.object(native, 'post_full', at_once(native.post_full)), \
                unittest.mock.patch.object(native, 'post_after', at_once(native.post_after)):
            self.loop.post(seen.append, 'posted')
            self.loop.submit(seen.append, 'submitted')
            self.loop.call_later(0, seen.append, 'delayed')
            self.loop.call(seen.append, 'called')
            self.loop.spawn(coroutine())
            self.loop.perform_soon(Source().work_async, finish=int).exception()
        self.assertEqual(seen, ['posted', 'submitted', 'delayed', 'called', 'coroutine', 'operation'])

    def test_switching_threads_all_the_time(self):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            def work():
                for i in range(scaled(100)):
                    self.loop.post(int)
                    assert self.loop.submit(pow, i, 2).result(HANG) == i * i
                    assert self.loop.call(pow, i, 2) == i * i

            in_threads(3, work)
        finally:
            sys.setswitchinterval(interval)
