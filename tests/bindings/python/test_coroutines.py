# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Coroutines: run and spawn, and asyncio on a loop."""

import asyncio
import concurrent.futures
import contextvars
import gc
import math
import os
import resource
import sys
import threading
import unittest.mock
import warnings
import weakref

import _bgloop.coroutine
from util import HANG, Bg, Gate, Gio, GLib, LoopTestCase, scaled

variable = contextvars.ContextVar('variable', default='nobody')


class Failure(Exception):
    pass


async def forever(started=None):
    if started is not None:
        started.set()
    await asyncio.Event().wait()


async def fail(error):
    await asyncio.sleep(0)
    try:
        raise error
    finally:
        error = None  # which would be a cycle


class Run(LoopTestCase):
    def test_returns_the_result(self):
        value = object()

        async def coroutine():
            await asyncio.sleep(0.001)
            return value, threading.current_thread()

        result, thread = self.loop.run(coroutine())
        self.assertIs(result, value)
        self.assertIs(thread, self.loop.call(threading.current_thread))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            self.assertIs(pool.submit(self.loop.run, coroutine()).result()[0], value)

    def test_raises_what_the_coroutine_raises(self):
        for error in Failure(), SystemExit(2), KeyboardInterrupt(), asyncio.TimeoutError(), GLib.Error('x', 'y', 1):
            hooked = []
            with unittest.mock.patch('threading.excepthook', hooked.append):
                with self.subTest(error=error), self.assertRaises(type(error)) as caught:
                    self.loop.run(fail(error))
                self.assertIs(caught.exception, error)
                self.assertEqual(self.loop.run(asyncio.sleep(0, 'goes on')), 'goes on')
            # asyncio lets some out of its loop as well, but run() has taken them
            self.assertEqual(hooked, [])

    def test_cancelled_by_itself(self):
        with self.assertRaises(asyncio.CancelledError):
            self.loop.run(fail(asyncio.CancelledError()))

    def test_deadline(self):
        async def coroutine():
            begun.set()
            try:
                await forever()
            finally:
                cancelled.set()

        for limit in 0.001, 0.02:
            begun, cancelled = threading.Event(), threading.Event()
            with Bg.Loop('limited') as loop:
                with self.assertRaises(TimeoutError) as caught:
                    loop.run(coroutine(), timeout=limit)
                self.assertIn('test_deadline.<locals>.coroutine', str(caught.exception))
                loop.shutdown(timeout=HANG)
            self.assertEqual(begun.is_set(), cancelled.is_set())

    def test_deadline_names_what_is_pending(self):
        started = threading.Event()
        future = self.loop.spawn(forever(started))
        started.wait(HANG)
        with self.assertRaises(TimeoutError) as caught:
            self.loop.shutdown(timeout=0.001)
        self.assertIn('forever is pending', str(caught.exception))
        future.cancel()

    def test_on_the_loops_own_thread_would_deadlock_and_closes(self):
        def work():
            coroutine = forever()
            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.run(coroutine)
            self.assertIsNone(coroutine.cr_frame)

        self.loop.call(work)

        async def inner():
            work()

        self.loop.run(inner())

    def test_what_is_refused_is_closed(self):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            self.loop.shutdown()
            for door in self.loop.run, self.loop.spawn:
                coroutine = forever()
                with self.assertRaises(Bg.ClosedError):
                    door(coroutine)
                self.assertIsNone(coroutine.cr_frame)
            for wrong in -1, math.nan:
                coroutine = forever()
                with self.assertRaises(ValueError):
                    self.loop.run(coroutine, timeout=wrong)
                self.assertIsNone(coroutine.cr_frame)

    def test_descriptors_that_cannot_be_had_are_an_error(self):
        self.loop.call(int)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        next_fd = os.open('/dev/null', os.O_RDONLY)
        os.close(next_fd)
        for n_free in 0, 1:  # not enough for a selector; for one, but not for what wakes it
            coroutine = forever()
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + n_free, hard))
            try:
                with self.assertRaises(OSError):
                    self.loop.run(coroutine)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            self.assertIsNone(coroutine.cr_frame)
        self.assertEqual(self.loop.run(asyncio.sleep(0, 'now they can')), 'now they can')
        self.loop.shutdown(timeout=HANG)

    def test_takes_coroutines_only(self):
        for door in self.loop.run, self.loop.spawn:
            for wrong in forever, 1, None:
                with self.assertRaises(TypeError):
                    door(wrong)

    def test_sees_the_callers_context(self):
        variable.set('caller')

        async def coroutine():
            seen = variable.get()
            await asyncio.sleep(0)
            variable.set('coroutine')
            return seen, await asyncio.create_task(inner())

        async def inner():
            return variable.get()

        self.assertEqual(self.loop.run(coroutine()), ('caller', 'coroutine'))
        self.assertEqual(self.loop.spawn(coroutine()).result(), ('caller', 'coroutine'))
        self.assertEqual(variable.get(), 'caller')

    def test_a_cancelling_shutdown_ends_it(self):
        started = threading.Event()
        errors = []

        def run():
            try:
                self.loop.run(forever(started))
            except Bg.ClosedError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        started.wait(HANG)
        self.loop.shutdown(cancel_futures=True)
        thread.join(HANG)
        self.assertEqual(len(errors), 1)

    def test_leaves_no_cycle(self):
        class Data:
            pass

        async def coroutine(data):
            await asyncio.sleep(0)
            return Data()

        self.loop.run(forever_not())
        gc.collect()
        gc.disable()
        try:
            data = Data()
            gone = weakref.ref(data)
            result = weakref.ref(self.loop.run(coroutine(data)))
            del data
            self.loop.flush()
            self.assertEqual((gone(), result()), (None, None))

            try:
                self.loop.run(fail(Failure()))
            except Failure as error:
                gone = weakref.ref(error)
            self.loop.flush()
            self.assertIsNone(gone())
        finally:
            gc.enable()

    def test_circles_are_refused(self):
        with Bg.Loop('other') as other:
            async def back():
                self.loop.call(self.fail)

            with self.assertRaises(Bg.WouldDeadlockError):
                self.loop.call(lambda: other.run(back()))
            other.flush()  # it may have been the one that waited first
            self.assertEqual(self.loop.call(lambda: other.run(asyncio.sleep(0, 'fine'))), 'fine')
            with self.assertRaises(TimeoutError):
                self.loop.call(lambda: other.run(forever(), timeout=0.01))


async def forever_not():
    pass


class Spawn(LoopTestCase):
    def test_result_and_exception(self):
        error = Failure()
        self.assertEqual(self.loop.spawn(asyncio.sleep(0.001, 5)).result(HANG), 5)
        self.assertIs(self.loop.spawn(fail(error)).exception(HANG), error)

    def test_cancel_raises_inside(self):
        seen, started, ended = [], threading.Event(), threading.Event()

        async def coroutine():
            try:
                await forever(started)
            except asyncio.CancelledError as error:
                seen.append(error)
                raise
            finally:
                ended.set()

        future = self.loop.spawn(coroutine())
        started.wait(HANG)
        self.assertTrue(future.cancel())
        self.assertTrue(future.cancelled())
        self.assertTrue(ended.wait(HANG))
        self.assertEqual(len(seen), 1)
        self.loop.shutdown(timeout=HANG)

    def test_cancel_before_it_starts(self):
        gate = Gate(self.loop)
        coroutine = fail(Failure())
        future = self.loop.spawn(coroutine)
        self.assertTrue(future.cancel())
        self.assertIsNone(coroutine.cr_frame)
        gate.open()
        self.loop.shutdown(timeout=HANG)

    def test_cancel_reaches_the_task_on_its_thread(self):
        class Task(asyncio.Task):
            def cancel(self, *arguments, **keywords):
                seen.append(threading.current_thread())
                return super().cancel(*arguments, **keywords)

        async def prepare():
            asyncio.get_running_loop().set_task_factory(
                lambda event_loop, coro, **keywords: Task(coro, loop=event_loop, **keywords))
            return threading.current_thread()

        seen, started = [], threading.Event()
        thread = self.loop.run(prepare())
        future = self.loop.spawn(forever(started))
        self.assertTrue(started.wait(HANG))
        self.assertTrue(future.cancel())
        self.loop.shutdown(timeout=HANG)
        self.assertEqual(seen, [thread])

    def test_cancel_while_it_starts(self):
        """It has been taken, and has no task yet."""
        async def prepare():
            asyncio.get_running_loop().set_task_factory(make)

        async def coroutine():
            seen.append('ran')

        def make(event_loop, coro, **keywords):
            if coro is cancelled:
                seen.append(future.cancel())
            return asyncio.Task(coro, loop=event_loop, **keywords)

        seen, cancelled = [], coroutine()
        self.loop.run(prepare())
        gate = Gate(self.loop)
        future = self.loop.spawn(cancelled)
        gate.open()
        self.loop.shutdown(timeout=HANG)
        self.assertEqual(seen, [True])

    def test_races_with_cancellation(self):
        async def coroutine():
            await asyncio.sleep(0)
            return 1

        for _ in range(scaled(200)):
            future = self.loop.spawn(coroutine())
            if not future.cancel():
                self.assertEqual(future.result(HANG), 1)
        self.loop.shutdown(timeout=HANG)

    def test_from_the_loop_itself(self):
        async def outer():
            future = self.loop.spawn(asyncio.sleep(0, 'inner'))
            return await asyncio.wrap_future(future)

        self.assertEqual(self.loop.run(outer()), 'inner')
        future = self.loop.call(lambda: self.loop.spawn(asyncio.sleep(0, 'called')))
        self.assertEqual(future.result(HANG), 'called')

    def test_keeps_the_loop_until_it_is_done(self):
        done = threading.Event()

        async def coroutine():
            await asyncio.sleep(0.01)
            done.set()

        loop = Bg.Loop('dropped')
        loop.spawn(coroutine())
        del loop
        self.assertTrue(done.wait(HANG))


class Shutdown(LoopTestCase):
    def test_drain_waits_for_what_was_begun(self):
        seen = []

        async def coroutine(i):
            await asyncio.sleep(0.01 * i)
            seen.append(i)
            return i

        futures = [self.loop.spawn(coroutine(i)) for i in range(3)]
        self.loop.shutdown()
        self.assertEqual(seen, [0, 1, 2])
        self.assertEqual([each.result(0) for each in futures], [0, 1, 2])

    def test_drain_lets_coroutines_begin_more(self):
        seen = []

        async def coroutine(n):
            await asyncio.sleep(0)
            if n:
                self.loop.spawn(coroutine(n - 1))
            seen.append(n)

        gate = Gate(self.loop)
        self.loop.spawn(coroutine(5))
        self.loop.quit()
        gate.open()
        self.loop.shutdown()
        self.assertEqual(seen, [5, 4, 3, 2, 1, 0])

    def test_cancel_cancels_and_waits(self):
        seen, started = [], threading.Event()

        async def coroutine():
            try:
                await forever(started)
            finally:
                await asyncio.sleep(0.01)
                seen.append('cleaned up')

        future = self.loop.spawn(coroutine())
        started.wait(HANG)
        gate = Gate()
        self.loop.post(gate)
        gate.wait()
        waiting = forever()
        never = self.loop.spawn(waiting)
        gate.open()
        self.loop.shutdown(cancel_futures=True)
        self.assertEqual(seen, ['cleaned up'])
        self.assertTrue(future.cancelled() and never.cancelled())
        self.assertIsNone(waiting.cr_frame)

    def test_what_asyncio_does_at_its_end(self):
        seen = []

        async def left_over():
            try:
                await forever()
            finally:
                seen.append('task')

        async def generator():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                seen.append('generator')

        async def coroutine():
            asyncio.create_task(left_over())
            generators.append(generator())
            await generators[0].__anext__()
            seen.append(await asyncio.get_running_loop().run_in_executor(None, lambda: 'executor'))
            return asyncio.get_running_loop()

        generators = []
        event_loop = self.loop.run(coroutine())
        executor = event_loop._default_executor
        self.assertFalse(event_loop.is_closed())
        self.loop.shutdown()
        self.assertEqual(seen, ['executor', 'task', 'generator'])
        self.assertTrue(event_loop.is_closed())
        self.assertTrue(executor._shutdown)

    def test_event_loop_that_comes_too_late_for_a_teardown_function(self):
        async def coroutine():
            return asyncio.get_running_loop()

        with unittest.mock.patch.object(self.loop._thread, 'add_teardown', side_effect=Bg.ClosedError):
            event_loop = self.loop.run(coroutine())
        self.assertFalse(event_loop.is_closed())
        self.loop.shutdown()
        self.assertTrue(event_loop.is_closed())

    def test_what_is_raised_at_the_end_is_told_of(self):
        async def left_over():
            try:
                await forever()
            finally:
                raise KeyError('of a task')

        async def fail_at_the_end():
            raise Failure('of asyncio')

        async def coroutine():
            event_loop = asyncio.get_running_loop()
            event_loop.set_exception_handler(lambda _, context: handled.append(context['exception']))
            event_loop.shutdown_asyncgens = fail_at_the_end
            asyncio.create_task(left_over())
            await asyncio.sleep(0)

        handled, hooked = [], []
        with unittest.mock.patch('threading.excepthook', lambda args: hooked.append(args.exc_value)):
            self.loop.run(coroutine())
            self.loop.shutdown()
        self.assertEqual([repr(each) for each in handled + hooked], ["KeyError('of a task')", "Failure('of asyncio')"])

    def test_left_over_tasks_may_use_the_context_at_the_end(self):
        seen = []

        async def left_over():
            try:
                await forever()
            finally:
                done = asyncio.get_running_loop().create_future()
                source = GLib.idle_source_new()
                source.set_callback(lambda *_: done.set_result('from the context'))
                source.attach(self_loop.get_context())
                seen.append(await done)

        async def coroutine():
            asyncio.create_task(left_over())
            await asyncio.sleep(0)

        self_loop = self.loop
        self.loop.run(coroutine())
        self.loop.shutdown()
        self.assertEqual(seen, ['from the context'])

    def test_teardown_functions_that_came_later_come_before(self):
        seen = []

        async def coroutine():
            return asyncio.get_running_loop()

        self.loop.add_teardown(lambda: seen.append(('first', event_loop.is_closed())))
        event_loop = self.loop.run(coroutine())
        self.loop.add_teardown(lambda: seen.append(('second', event_loop.is_closed())))
        self.loop.shutdown()
        self.assertEqual(seen, [('second', False), ('first', True)])

    def test_leaves_no_descriptor(self):
        def use():
            with Bg.Loop('with asyncio') as loop:
                loop.run(asyncio.sleep(0))

        use()
        before = len(os.listdir('/proc/self/fd'))
        for _ in range(scaled(50)):
            use()
        gc.collect()
        self.assertEqual(len(os.listdir('/proc/self/fd')), before)


    def test_handler_of_the_cancellable_waits_for_what_is_cancelled(self):
        seen = []
        future = self.loop.spawn(forever())

        def cancelled(*_):
            with self.assertRaises(concurrent.futures.CancelledError):
                future.exception(HANG)
            seen.append('cancelled')

        self.loop.get_cancellable().connect(cancelled)
        self.loop.quit(Bg.ShutdownMode.CANCEL)
        self.loop.shutdown()
        self.assertEqual(seen, ['cancelled'])


class Asyncio(LoopTestCase):
    def test_times_that_never_come(self):
        for when, ready in (math.inf, -1), (1e300, -1), (10 ** 400, -1), (math.nan, 0), (2e13, -1), (-math.inf, 0), (-1, 0), (1.5, 1500000):
            self.assertEqual(_bgloop.coroutine._get_ready_time(when), ready, when)

        with unittest.mock.patch('threading.excepthook') as hook:
            waits = [self.loop.spawn(asyncio.sleep(seconds)) for seconds in (math.inf, 1e300)]
            self.loop.run(asyncio.sleep(0.01))
            self.loop.shutdown(cancel_futures=True)
        self.assertEqual([wait.cancelled() for wait in waits], [True, True])
        hook.assert_not_called()

    def test_is_closed_by_its_loop_only(self):
        async def close():
            event_loop = asyncio.get_running_loop()
            with self.assertRaisesRegex(RuntimeError, 'Cannot close a running event loop'):
                event_loop.close()
            return event_loop

        event_loop = self.loop.run(close())
        with self.assertRaisesRegex(RuntimeError, 'Cannot close a running event loop'):
            event_loop.close()
        self.assertIs(self.loop.run(close()), event_loop)
        self.loop.shutdown()
        self.assertTrue(event_loop.is_closed())
        event_loop.close()

    def test_timers_and_gather(self):
        async def coroutine():
            seen = []
            event_loop = asyncio.get_running_loop()
            begin = event_loop.time()

            async def wait(seconds):
                due = event_loop.create_future()
                event_loop.call_at(begin + seconds, due.set_result, None)
                await due
                seen.append(seconds)

            await asyncio.gather(wait(0.02), wait(0), wait(0.01))
            return seen

        self.assertEqual(self.loop.run(coroutine()), [0, 0.01, 0.02])

    def test_streams(self):
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        async def coroutine():
            server = await asyncio.start_server(echo, '127.0.0.1', 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b'hello\n')
            line = await reader.readline()
            writer.close()
            server.close()
            await server.wait_closed()
            return line

        self.assertEqual(self.loop.run(coroutine()), b'hello\n')

    def test_subprocesses(self):
        async def coroutine():
            process = await asyncio.create_subprocess_exec('echo', 'hello', stdout=asyncio.subprocess.PIPE)
            output, _ = await process.communicate()
            return output, process.returncode

        self.assertEqual(self.loop.run(coroutine()), (b'hello\n', 0))

    def test_calls_from_other_threads(self):
        async def coroutine():
            event_loop = asyncio.get_running_loop()
            future = event_loop.create_future()
            thread = threading.Thread(target=lambda: event_loop.call_soon_threadsafe(future.set_result, 5))
            thread.start()
            result = await future
            thread.join()
            return result, await asyncio.to_thread(threading.get_ident) != threading.get_ident()

        self.assertEqual(self.loop.run(coroutine()), (5, True))

    def test_run_coroutine_threadsafe(self):
        async def coroutine():
            return asyncio.get_running_loop()

        event_loop = self.loop.run(coroutine())
        self.assertTrue(event_loop.is_running())
        self.assertEqual(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001, 7), event_loop).result(HANG), 7)

    def test_woken_by_the_loops_own_functions(self):
        """A function of the loop, or a source of its context, that completes a future."""
        async def coroutine():
            future = asyncio.get_running_loop().create_future()
            self.loop.post(future.set_result, 'posted')
            first = await future
            future = asyncio.get_running_loop().create_future()
            source = GLib.timeout_source_new(1)
            source.set_callback(lambda *_: future.set_result('source'))
            source.attach(self.loop.get_context())
            return first, await future

        self.assertEqual(self.loop.run(coroutine()), ('posted', 'source'))

    def test_timers_that_functions_set(self):
        async def get():
            return asyncio.get_running_loop()

        event_loop = self.loop.run(get())
        done = threading.Event()
        self.loop.post(event_loop.call_later, 0.005, done.set)
        self.assertTrue(done.wait(HANG))

    def test_side_by_side_with_gio(self):
        async def coroutine():
            file = Gio.File.new_for_path(__file__)
            results = await asyncio.gather(
                asyncio.wrap_future(self.loop.perform_soon(file.load_contents_async)),
                asyncio.sleep(0.001, 'slept'))
            return results[0].contents, results[1]

        with open(__file__, 'rb') as file:
            self.assertEqual(self.loop.run(coroutine()), (file.read(), 'slept'))

    def test_is_seen_by_coroutines_only(self):
        def look():
            try:
                return asyncio.get_running_loop()
            except RuntimeError:
                return None

        async def coroutine():
            return look()

        hooks = self.loop.call(sys.get_asyncgen_hooks)
        self.assertIsNone(self.loop.call(look))
        self.assertIsNotNone(self.loop.run(coroutine()))
        self.assertIsNone(self.loop.call(look))
        self.assertEqual(self.loop.call(sys.get_asyncgen_hooks), hooks)

    def test_other_peoples_run_in_a_function(self):
        async def coroutine():
            await asyncio.sleep(0.001)
            return 'inner'

        self.loop.run(asyncio.sleep(0))
        self.assertEqual(self.loop.call(lambda: asyncio.run(coroutine())), 'inner')
        self.assertEqual(self.loop.run(coroutine()), 'inner')

    def test_exceptions_that_leave_its_loop_do_not_end_it(self):
        hooked = []

        async def coroutine():
            asyncio.get_running_loop().call_soon(sys.exit, 1)
            await asyncio.sleep(0.001)
            return 'goes on'

        with unittest.mock.patch('threading.excepthook', hooked.append):
            self.assertEqual(self.loop.run(coroutine()), 'goes on')
        self.assertEqual([each.exc_type for each in hooked], [SystemExit])

    def test_a_flood_does_not_starve_other_work(self):
        async def flood(stop):
            while not stop.is_set():
                await asyncio.sleep(0)

        stop = threading.Event()
        future = self.loop.spawn(flood(stop))
        fired = threading.Event()
        self.loop.call_later(0.001, fired.set)
        self.assertEqual(self.loop.call(int), 0)
        self.assertTrue(fired.wait(HANG))
        stop.set()
        future.result(HANG)

    def test_many_at_once(self):
        async def coroutine(i):
            await asyncio.sleep(0.001 * (i % 5))
            return i

        futures = [self.loop.spawn(coroutine(i)) for i in range(scaled(500))]
        self.assertEqual([each.result(HANG) for each in futures], list(range(scaled(500))))

    def test_debug_mode(self):
        async def coroutine():
            asyncio.get_running_loop().set_debug(True)
            await asyncio.sleep(0.001)
            asyncio.get_running_loop().call_later(0, lambda: None)
            return 'checked'

        self.assertEqual(self.loop.run(coroutine()), 'checked')
