# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gio's asynchronous operations: perform and perform_soon."""

import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import threading
import unittest.mock
import weakref

from _bgloop.operation import Operation
from util import HANG, Bg, Gate, Gio, GLib, GObject, LoopTestCase, scaled

variable = contextvars.ContextVar('variable', default='nobody')


class Failure(Exception):
    pass


class Result(GObject.Object, Gio.AsyncResult):
    value = None


class Source:
    """An object of Python's with an operation in Gio's form, which does as it is told."""

    def __init__(self, begin=None):
        self.begin = begin
        self.seen = []
        self.begun = threading.Event()

    def work_async(self, *arguments):
        *arguments, cancellable, callback = arguments
        self.seen.append((arguments, threading.current_thread()))
        try:
            if self.begin is not None:
                self.begin(self, cancellable, callback)
        finally:
            self.begun.set()

    def work_finish(self, result):
        self.seen.append(('finish', threading.current_thread()))
        if isinstance(result.value, BaseException):
            raise result.value
        return result.value


def answer(value):
    def begin(source, cancellable, callback):
        result = Result()
        result.value = value
        callback(source, result)

    return begin


def when_cancelled(source, cancellable, callback):
    """Answers, on the loop, when it is cancelled."""
    context = GLib.MainContext.get_thread_default()

    def finish(*_):
        answer(GLib.Error('cancelled', 'g-io-error-quark', int(Gio.IOErrorEnum.CANCELLED)))(source, cancellable, callback)

    def cancelled(*_):
        idle = GLib.idle_source_new()
        idle.set_callback(finish)
        idle.attach(context)

    cancellable.connect(cancelled)


class Perform(LoopTestCase):
    def read(self):
        with open(__file__, 'rb') as file:
            return file.read()

    def test_returns_what_the_finish_function_returns(self):
        file = Gio.File.new_for_path(__file__)
        ok, contents, etag = self.loop.perform(file.load_contents_async)
        self.assertEqual((ok, contents), (True, self.read()))
        self.assertEqual(self.loop.perform_soon(file.load_contents_async).result(HANG).contents, contents)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            self.assertEqual(pool.submit(self.loop.perform, file.load_contents_async).result(HANG).contents,
                             contents)

    def test_raises_what_the_finish_function_raises(self):
        file = Gio.File.new_for_path('/nowhere/to/be/found')
        with self.assertRaises(GLib.Error) as caught:
            self.loop.perform(file.load_contents_async)
        self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.NOT_FOUND))

        error = Failure()
        with self.assertRaises(Failure) as caught:
            self.loop.perform(Source(answer(error)).work_async)
        self.assertIs(caught.exception, error)

    def test_arguments_come_before_the_cancellable(self):
        file = Gio.File.new_for_path(__file__)
        info = self.loop.perform(file.query_info_async, 'standard::size', Gio.FileQueryInfoFlags.NONE,
                                 GLib.PRIORITY_DEFAULT)
        self.assertEqual(info.get_size(), len(self.read()))

    def test_objects_of_one_operation_take_part_in_the_next(self):
        stream = self.loop.perform(Gio.File.new_for_path(__file__).read_async, GLib.PRIORITY_DEFAULT)
        data = self.loop.perform(stream.read_bytes_async, 10, GLib.PRIORITY_DEFAULT)
        self.assertEqual(data.get_data(), self.read()[:10])
        self.assertTrue(self.loop.perform(stream.close_async, GLib.PRIORITY_DEFAULT))

    def test_names_without_async(self):
        subprocess = Gio.Subprocess.new(['true'], Gio.SubprocessFlags.NONE)
        self.assertTrue(self.loop.perform(subprocess.wait_async))

        with self.assertRaises(TypeError):
            self.loop.perform(len)

        class Named:
            def call(self, cancellable, callback):
                answer('called')(self, cancellable, callback)

            def call_finish(self, result):
                return result.value

        self.assertEqual(self.loop.perform(Named().call), 'called')

    def test_constructors(self):
        """There is no source to have the finish function."""
        with self.assertRaises(GLib.Error) as caught:
            self.loop.perform(Gio.DBusConnection.new_for_address, 'unix:path=/nowhere',
                              Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT, None)
        self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.NOT_FOUND))

    def test_module_functions_need_finish(self):
        with self.assertRaises(TypeError) as caught:
            self.loop.perform(Gio.bus_get, Gio.BusType.SESSION)
        self.assertIn('bus_get_finish', str(caught.exception))
        with unittest.mock.patch.dict('os.environ'):
            GLib.setenv('DBUS_SESSION_BUS_ADDRESS', 'unix:path=/nowhere', True)
            with self.assertRaises(GLib.Error):
                self.loop.perform(Gio.bus_get, Gio.BusType.SESSION, finish=Gio.bus_get_finish)

    def test_all_of_it_is_on_the_loop(self):
        source = Source(answer(5))
        self.assertEqual(self.loop.perform(source.work_async, 1, 2), 5)
        thread = self.loop.call(threading.current_thread)
        self.assertEqual(source.seen, [([1, 2], thread), ('finish', thread)])

    def test_holds_the_loop_until_all_are_told(self):
        holds = []
        for value in 5, Failure():
            gate = Gate(self.loop)
            future = self.loop.perform_soon(Source(answer(value)).work_async)
            future.add_done_callback(lambda _: holds.append(self.loop.get_stats().holds))
            gate.open()
            self.loop.flush()
        self.assertEqual(holds, [1, 1])

    def test_answer_in_another_thread(self):
        threads = []

        def begin(source, cancellable, callback):
            threads.append(threading.Thread(target=answer(5), args=(source, cancellable, callback)))
            threads[-1].start()

        source = Source(begin)
        self.assertEqual(self.loop.perform(source.work_async), 5)
        threads.pop().join()
        thread = self.loop.call(threading.current_thread)
        self.assertEqual([each[1] for each in source.seen], [thread, thread])

    def test_begins_in_the_loops_context(self):
        """Whatever the work around it has pushed."""
        contexts = []

        def begin(source, cancellable, callback):
            contexts.append(GLib.MainContext.get_thread_default() == self.loop.get_context())
            answer(1)(source, cancellable, callback)

        def around():
            context = GLib.MainContext()
            context.push_thread_default()
            try:
                future = self.loop.perform_soon(Source(begin).work_async)
                while not future.done():
                    self.loop.get_context().iteration(False)
            finally:
                context.pop_thread_default()
            return future.result()

        self.assertEqual(self.loop.call(around), 1)
        self.assertEqual(contexts, [True])

    def test_begin_that_raises_is_the_answer(self):
        error = Failure()

        def begin(source, cancellable, callback):
            raise error

        with self.assertRaises(Failure) as caught:
            self.loop.perform(Source(begin).work_async)
        self.assertIs(caught.exception, error)
        with self.assertRaises(TypeError):
            self.loop.perform(Gio.File.new_for_path('/').load_contents_async, 'one too many')
        self.loop.shutdown(timeout=HANG)

    def test_sees_the_callers_context_variables(self):
        variable.set('caller')
        seen = []

        def begin(source, cancellable, callback):
            seen.append(variable.get())
            answer(1)(source, cancellable, callback)

        self.loop.perform(Source(begin).work_async)
        self.loop.perform_soon(Source(begin).work_async).result()
        self.assertEqual(seen, ['caller', 'caller'])

    def test_own_thread_would_deadlock(self):
        with self.assertRaises(Bg.WouldDeadlockError):
            self.loop.call(self.loop.perform, Source(answer(1)).work_async)
        future = self.loop.call(self.loop.perform_soon, Source(answer(1)).work_async)
        self.assertEqual(future.result(HANG), 1)

    def test_circles_are_refused(self):
        def begin(source, cancellable, callback):
            self.loop.call(self.fail)

        with Bg.Loop('other') as other:
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(other.perform, Source(begin).work_async)
            self.assertEqual(self.loop.call(other.perform, Source(answer(1)).work_async), 1)

    def test_leaves_no_cycle(self):
        class Data:
            pass

        class Failing(Source):
            def work_finish(self, result):
                raise Failure

        gc.collect()
        gc.disable()
        try:
            value = Data()
            gone = weakref.ref(value)
            self.loop.perform(Source(answer(value)).work_async)
            del value
            self.loop.flush()
            self.assertIsNone(gone())

            try:
                self.loop.perform(Failing(answer(1)).work_async)
            except Failure as error:
                gone = weakref.ref(error)
            self.loop.flush()
            self.assertIsNone(gone())
        finally:
            gc.enable()


class Wrong(LoopTestCase):
    """Nothing that Python code does wrong may leave the loop unable to end."""

    def test_nobody_answers(self):
        def check(begin):
            with self.assertRaises(GLib.Error) as caught:
                self.loop.perform(Source(begin).work_async)
            self.assertTrue(caught.exception.matches(Bg.error_quark(), Bg.Error.UNANSWERED))

        kept = []
        check(None)
        check(lambda source, cancellable, callback: callback(source, None))

        def later(source, cancellable, callback):
            kept.append(callback)
            threading.Timer(0.01, kept.clear).start()

        check(later)
        self.loop.shutdown(timeout=HANG)

    def test_answers_more_than_once(self):
        def begin(source, cancellable, callback):
            answer(1)(source, cancellable, callback)
            answer(2)(source, cancellable, callback)
            kept.append(callback)

        kept = []
        source = Source(begin)
        self.assertEqual(self.loop.perform(source.work_async), 1)
        answer(3)(source, None, kept.pop())
        self.assertEqual(len([each for each in source.seen if each[0] == 'finish']), 1)
        self.loop.shutdown(timeout=HANG)

    def test_answers_and_raises(self):
        def begin(source, cancellable, callback):
            answer(1)(source, cancellable, callback)
            raise Failure

        reported = []
        with unittest.mock.patch('threading.excepthook', reported.append):
            self.assertEqual(self.loop.perform(Source(begin).work_async), 1)
            self.loop.shutdown(timeout=HANG)
        self.assertEqual([each.exc_type for each in reported], [Failure])

    def test_raises_and_answers(self):
        def begin(source, cancellable, callback):
            kept.append(callback)
            raise Failure

        kept = []
        source = Source(begin)
        with self.assertRaises(Failure):
            self.loop.perform(source.work_async)
        answer(1)(source, None, kept.pop())
        self.loop.shutdown(timeout=HANG)

    def test_finish_that_is_none(self):
        with self.assertRaises(TypeError):
            self.loop.perform(Source(answer(1)).work_async, finish=5)
        self.loop.shutdown(timeout=HANG)


class Ends(LoopTestCase):
    def test_deadline_cancels(self):
        source = Source(when_cancelled)
        with self.assertRaises(TimeoutError) as caught:
            self.loop.perform(source.work_async, timeout=0.01)
        self.assertIn('work_async', str(caught.exception))
        self.loop.shutdown(timeout=HANG)

    def test_cancellable(self):
        for call in self.loop.perform, lambda *a, **k: self.loop.perform_soon(*a, **k).result(HANG):
            source, cancellable = Source(when_cancelled), Gio.Cancellable()
            timer = threading.Timer(0.01, cancellable.cancel)
            timer.start()
            with self.assertRaises(GLib.Error) as caught:
                call(source.work_async, cancellable=cancellable)
            self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))
            timer.join()
            with self.assertRaises(GLib.Error) as caught:
                call(Source(self.fail).work_async, cancellable=cancellable)
            self.assertTrue(caught.exception.matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))
        self.loop.shutdown(timeout=HANG)

    def test_cancellable_is_left_alone_afterwards(self):
        cancellable = Gio.Cancellable()
        for _ in range(3):
            self.assertEqual(self.loop.perform(Source(answer(1)).work_async, cancellable=cancellable), 1)
        self.loop.flush()
        self.assertFalse(GObject.signal_has_handler_pending(
            cancellable, GObject.signal_lookup('cancelled', Gio.Cancellable), 0, True))

    def test_cancellable_of_what_is_over_before_it_is_followed(self):
        """The loop may be faster than the thread that has given it the operation."""
        cancellable = Gio.Cancellable()
        follow = Operation.follow

        def follow_late(*arguments):
            self.loop.flush()
            follow(*arguments)

        with unittest.mock.patch.object(Operation, 'follow', follow_late):
            self.assertEqual(self.loop.perform(Source(answer(1)).work_async, cancellable=cancellable), 1)
        self.assertFalse(GObject.signal_has_handler_pending(
            cancellable, GObject.signal_lookup('cancelled', Gio.Cancellable), 0, True))

    def test_future_cancels_the_operation(self):
        source = Source(when_cancelled)
        future = self.loop.perform_soon(source.work_async)
        source.begun.wait(HANG)
        self.assertTrue(future.cancel())
        self.assertTrue(future.cancelled())
        self.loop.shutdown(timeout=HANG)

    def test_future_cancelled_before_it_begins(self):
        gate = Gate(self.loop)
        source = Source(answer(1))
        self.assertTrue(self.loop.perform_soon(source.work_async).cancel())
        gate.open()
        self.loop.flush()
        self.assertEqual(source.seen, [])

    def test_races_with_cancellation(self):
        file = Gio.File.new_for_path(__file__)
        for _ in range(scaled(100)):
            future = self.loop.perform_soon(file.load_contents_async)
            if not future.cancel():
                future.result(HANG)
        self.loop.shutdown(timeout=HANG)

    def test_drain_waits(self):
        kept = []
        source = Source(lambda source, cancellable, callback: kept.append(callback))
        future = self.loop.perform_soon(source.work_async)
        source.begun.wait(HANG)
        with self.assertRaises(TimeoutError) as caught:
            self.loop.shutdown(timeout=0.01)
        self.assertIn('work_async', str(caught.exception))
        answer(5)(source, None, kept.pop())
        self.loop.shutdown(timeout=HANG)
        self.assertEqual(future.result(0), 5)

    def test_answers_when_nobody_else_has_the_loop(self):
        kept = []
        source = Source(lambda source, cancellable, callback: kept.append(callback))
        loop = Bg.Loop('dropped')
        loop.perform_soon(source.work_async)
        loop.flush()
        loop.quit(Bg.ShutdownMode.CANCEL)
        reference = weakref.ref(loop)
        del loop
        self.assertIsNotNone(reference())
        kept.clear()
        self.assertIsNone(reference())

    def test_cancel_ends_the_wait(self):
        source, errors = Source(when_cancelled), []

        def perform():
            try:
                self.loop.perform(source.work_async)
            except Bg.ClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=perform)
        thread.start()
        source.begun.wait(HANG)
        future = self.loop.perform_soon(Source(when_cancelled).work_async)
        self.loop.shutdown(cancel_futures=True, timeout=HANG)
        thread.join(HANG)
        self.assertEqual(len(errors), 1)
        self.assertTrue(future.cancelled())

    def test_begins_while_a_shutdown_cancels(self):
        for _ in range(scaled(100)):
            loop = Bg.Loop('racing')
            futures = [loop.perform_soon(Source(when_cancelled).work_async), loop.spawn(asyncio.sleep(1000)),
                       loop.perform_soon(Source(when_cancelled).work_async), loop.spawn(asyncio.sleep(1000))]
            loop.quit(Bg.ShutdownMode.CANCEL)
            loop.shutdown(timeout=HANG)
            self.assertEqual([each.cancelled() for each in futures], [True] * 4)

    def test_begins_when_the_loop_takes_no_more_holds(self):
        """A shutdown in CANCEL mode has not come to dropping it."""
        async def coroutine():
            self.fail()

        coro = coroutine()
        with unittest.mock.patch.object(self.loop._thread, 'hold', side_effect=Bg.ClosedError):
            futures = [self.loop.spawn(coro), self.loop.perform_soon(Source(self.fail).work_async)]
            self.loop.flush()
        self.assertEqual([each.cancelled() for each in futures], [True] * 2)
        self.assertIsNone(coro.cr_frame)

    def test_cancelled_by_several_at_once(self):
        """What has not begun, or has, is ended by one of them."""
        async def coroutine():
            await asyncio.Event().wait()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(scaled(30)):
                loop = Bg.Loop('cancelled')
                coroutines = [coroutine() for _ in range(20)]
                futures = [loop.spawn(each) for each in coroutines]
                futures += [loop.perform_soon(Source(when_cancelled).work_async) for _ in range(20)]
                threads = [threading.Thread(target=loop.quit, args=(Bg.ShutdownMode.CANCEL,)) for _ in range(2)]
                threads.append(threading.Thread(target=lambda: [each.cancel() for each in futures]))
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(HANG)
                loop.shutdown(timeout=HANG)
                self.assertTrue(all(each.cancelled() for each in futures))
                self.assertEqual({each.cr_frame for each in coroutines}, {None})
        finally:
            sys.setswitchinterval(interval)

    def test_loops_cancellable_cancels_operations(self):
        source = Source(when_cancelled)
        future = self.loop.perform_soon(source.work_async)
        source.begun.wait(HANG)
        self.loop.get_cancellable().cancel()
        self.assertTrue(future.exception(HANG).matches(Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED))

    def test_refused(self):
        self.loop.shutdown()
        for door in self.loop.perform, self.loop.perform_soon:
            with self.assertRaises(Bg.ClosedError):
                door(Source(self.fail).work_async)

    def test_mixed_with_coroutines_at_both_ends(self):
        async def coroutine(loop, source):
            await asyncio.wrap_future(loop.perform_soon(source.work_async))

        for cancel in False, True:
            loop = Bg.Loop('mixed')
            futures = []
            for _ in range(scaled(50)):
                if cancel:
                    futures.append(loop.perform_soon(Source(when_cancelled).work_async))
                    futures.append(loop.spawn(coroutine(loop, Source(when_cancelled))))
                futures.append(loop.perform_soon(Gio.File.new_for_path(__file__).load_contents_async))
                futures.append(loop.spawn(asyncio.sleep(0)))
                futures.append(loop.submit(int))
            loop.shutdown(cancel_futures=cancel, timeout=HANG)
            self.assertTrue(all(each.done() for each in futures))
            if not cancel:
                self.assertEqual([each for each in futures if each.cancelled() or each.exception()], [])
