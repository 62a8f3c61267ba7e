# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A loop's life: start, names, shutdown, drop, teardown, hold, default."""

import concurrent.futures
import gc
import itertools
import math
import os
import pathlib
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
import weakref
from unittest import mock

from util import HANG, Bg, Gate, Gio, GLib, GObject, LoopTestCase, bgloop, run_script, scaled

from _bgloop import native, waiting
from _bgloop.waiting import _name_running


class Names(unittest.TestCase):
    def test_what_runs_is_named_in_each_language(self):
        """In a report of the library's the function that Python runs is put in the place of its own."""
        catalogs = pathlib.Path(os.environ['BGLOOP_SOURCE_DIR'], '..', '..', 'po')
        texts = ['running %s for %s']
        for catalog in catalogs.glob('*.po'):
            text = catalog.read_text(encoding='utf-8')
            texts += re.findall(r'^msgid "running %s for %s"\nmsgstr "(.+)"$', text, re.MULTILINE)
        self.assertEqual(len(texts), 8)

        for text in texts:
            with self.subTest(text), mock.patch.object(waiting, 'translate', lambda _, text=text: text):
                line, named = (re.sub(r'%(?:1\$)?s', function, re.sub(r'%2\$s', '1,2 s', text), count=1).replace('%s', '1,2 s')
                               for function in ('a function at 0x7f00', 'fetch()'))
                self.assertEqual(_name_running(line, 'fetch()'), named)
                self.assertEqual(_name_running('3 queued', 'fetch()'), '3 queued')

    def test_texts_come_in_the_encoding_that_they_are_read_in(self):
        process = run_script('''
            from _bgloop import native, text

            text.translate('standing by:')
            print(native.bind_textdomain_codeset(text.DOMAIN, None).decode())
        ''')
        self.assertEqual(process.stdout, 'UTF-8\n')


class Reports(LoopTestCase):
    def test_what_stands_by_is_in_nobodys_way(self):
        timer = self.loop.call_later(3600, int)
        gate = Gate(self.loop)
        with self.assertRaises(TimeoutError) as caught:
            self.loop.call(int, timeout=0.01)
        gate.open()
        self.assertRegex(str(caught.exception), r'did not start within 10 ms: running .*')
        self.assertNotIn('standing by', str(caught.exception))
        self.assertNotIn('delayed', str(caught.exception))
        self.assertIn('standing by:\n  1 delayed, due in ', self.loop.describe())
        timer.cancel()


    def test_lines_are_no_end(self):
        loop = bgloop.Loop('my\nloop')
        self.addCleanup(loop.shutdown)
        holds = [loop.hold('SELECT *\nFROM t'), loop.hold('another')]
        source = GLib.timeout_source_new(3600000)
        source.set_name('a\nsource')
        loop.attach(source)
        with self.assertRaises(TimeoutError) as caught:
            loop.shutdown(timeout=0.01)
        for hold in holds:
            hold.release()
        self.assertRegex(str(caught.exception),
                         r'(?s)^The loop "my\nloop" has not stopped within 10 ms: held by "SELECT \*; FROM t" for .*; '
                         r'held by "another" for [^;]*$')


class Doors(unittest.TestCase):
    def test_both_have_the_same_classes(self):
        import gi.repository.Bg as other

        for name in bgloop.__all__:
            if name != 'Bg':
                self.assertIs(getattr(bgloop, name), getattr(other, name), name)

    def test_package_is_typed(self):
        self.assertTrue(os.path.exists(os.path.join(os.path.dirname(bgloop.__file__), 'py.typed')))

    def test_without_pygobject_only_those_who_ask_for_something_are_told(self):
        """pytest imports the package for its plugin, in whatever Python finds it."""
        program = '''
import bgloop, bgloop.pytest_plugin
try:
    bgloop.Loop
except ImportError:
    print('told')
'''
        folder = pathlib.Path(bgloop.__file__).parents[1]
        with tempfile.TemporaryDirectory() as plugins:
            pathlib.Path(plugins, 'pytest.py').write_text(
                'hookimpl = lambda **_: lambda function: function\n'
                'fixture = lambda *arguments, **_: arguments[0] if arguments else lambda function: function\n')
            # Without site there are no packages of the system's.
            process = subprocess.run([sys.executable, '-S', '-c', program], capture_output=True, text=True,
                                     env={**os.environ, 'PYTHONPATH': f'{folder}:{plugins}'}, timeout=HANG)
        self.assertEqual((process.stdout, process.stderr), ('told\n', ''))

    def test_an_override_that_is_not_found_is_missed(self):
        process = run_script('''
            import os
            import gi.overrides

            gi.overrides.__path__ = [path for path in gi.overrides.__path__
                                     if not os.path.exists(os.path.join(path, 'Bg.py'))]
            import bgloop

            try:
                bgloop.Loop
            except ImportError as error:
                print(error)
        ''')
        self.assertIn('gi/overrides/Bg.py', process.stdout)

    def test_errors_are_of_the_librarys_domain(self):
        for kind, code in ((Bg.ClosedError, Bg.Error.CLOSED), (Bg.ForkedError, Bg.Error.FORKED),
                           (Bg.WouldDeadlockError, Bg.Error.WOULD_DEADLOCK)):
            error = kind('text')
            self.assertIsInstance(error, GLib.Error)
            self.assertIsInstance(error, RuntimeError)
            self.assertTrue(error.matches(Bg.error_quark(), code))
            self.assertEqual(error.message, 'text')


class Start(LoopTestCase):
    def test_runs_when_it_is_there(self):
        loop = Bg.Loop('a name')
        self.assertEqual(loop.get_name(), 'a name')
        self.assertEqual(loop.get_state(), Bg.LoopState.RUNNING)
        self.assertFalse(loop.is_current())
        self.assertTrue(loop.call(loop.is_current))
        loop.shutdown()
        self.assertEqual(loop.get_state(), Bg.LoopState.STOPPED)

    def test_name_may_be_missing(self):
        for loop in Bg.Loop(), Bg.Loop(None), Bg.Loop(name=None), Bg.Loop.new(None):
            with loop:
                self.assertEqual(loop.get_name(), 'bgloop')

    def test_is_an_executor(self):
        self.assertIsInstance(self.loop, concurrent.futures.Executor)

    def test_linger(self):
        for seconds, expected in ((0, 0), (0.00005, 50), (0.001, 1000), (None, 50)):
            with Bg.Loop(linger=seconds) as loop:
                self.assertEqual(loop.props.linger, expected)
        for wrong in -0.1, 0.0011, math.nan, math.inf:
            with self.assertRaises(ValueError):
                Bg.Loop(linger=wrong)

    def test_thread_that_cannot_be_had_is_an_error(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        next_fd = os.open('/dev/null', os.O_RDONLY)
        os.close(next_fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd, hard))
        try:
            with self.assertRaises(GLib.Error):
                Bg.Loop('no descriptors')
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Thread(LoopTestCase):
    def test_is_one_object_with_the_loops_name(self):
        first = self.loop.call(threading.current_thread)
        second = self.loop.submit(threading.current_thread).result()
        self.assertIs(first, second)
        self.assertEqual(first.name, self.loop.get_name())
        self.assertIn(first, threading.enumerate())
        ident = self.loop.call(threading.get_ident)
        self.assertEqual(first.ident, ident)
        self.loop.shutdown()
        self.assertNotIn(first, threading.enumerate())

    def test_local_data_stays(self):
        local = threading.local()

        def set_value():
            local.value = 42

        self.loop.call(set_value)
        self.assertEqual(self.loop.call(lambda: local.value), 42)
        self.assertEqual(self.loop.submit(lambda: local.value).result(), 42)
        seen = []
        self.loop.add_teardown(lambda: seen.append(local.value))
        self.loop.shutdown()
        self.assertEqual(seen, [42])

    def test_local_data_goes_with_the_thread(self):
        class Data:
            pass

        local = threading.local()
        gone = threading.Event()
        threads = []

        def set_value():
            local.value = Data()
            weakref.finalize(local.value, lambda: (threads.append(threading.get_ident()), gone.set()))

        self.loop.call(set_value)
        ident = self.loop.call(threading.get_ident)
        self.loop.shutdown()
        self.assertTrue(gone.is_set())
        self.assertEqual(threads, [ident])

    def test_sqlite_connections_work(self):
        connection = self.loop.call(sqlite3.connect, ':memory:')
        self.loop.call(connection.execute, 'create table t (x)')
        self.loop.post(connection.execute, 'insert into t values (1)')
        self.assertEqual(self.loop.call(lambda: connection.execute('select x from t').fetchall()), [(1,)])
        self.loop.call(connection.close)


class Shutdown(LoopTestCase):
    def test_runs_what_was_accepted(self):
        seen = []
        gate = Gate(self.loop)
        for i in range(100):
            self.loop.post(seen.append, i)
        future = self.loop.submit(pow, 2, 5)
        gate.open()
        self.loop.shutdown()
        self.assertEqual(seen, list(range(100)))
        self.assertEqual(future.result(timeout=0), 32)

    def test_cancel_runs_nothing_more(self):
        seen = []
        gate = Gate(self.loop)
        self.loop.post(seen.append, 1)
        future = self.loop.submit(seen.append, 2)
        self.loop.shutdown(wait=False, cancel_futures=True)
        self.assertTrue(future.cancelled())
        gate.open()
        self.loop.shutdown()
        self.assertEqual(seen, [])

    def test_cancel_that_does_not_wait_tells_all(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        with self.assertRaises(TimeoutError):
            self.loop.shutdown(cancel_futures=True, timeout=0)
        self.assertTrue(future.cancelled())
        gate.open()

    def test_twice(self):
        self.loop.shutdown()
        self.loop.shutdown()
        self.loop.shutdown(cancel_futures=True)
        self.loop.shutdown(timeout=0)

    def test_from_many_threads(self):
        threads = [threading.Thread(target=self.loop.shutdown) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
            self.assertFalse(thread.is_alive())
        self.assertEqual(self.loop.get_state(), Bg.LoopState.STOPPED)

    def test_on_its_own_thread_would_deadlock(self):
        with self.assertRaises(Bg.WouldDeadlockError):
            self.loop.call(self.loop.shutdown)
        self.assertEqual(self.loop.get_state(), Bg.LoopState.RUNNING)
        with self.assertRaises(Bg.WouldDeadlockError):
            self.loop.call(self.loop.flush)

    def test_refuses_work(self):
        self.loop.shutdown()
        self.assertIs(self.loop.post(self.fail), False)
        for door in (lambda: self.loop.call(self.fail), lambda: self.loop.submit(self.fail),
                     lambda: self.loop.call_later(0, self.fail), lambda: self.loop.add_teardown(self.fail),
                     lambda: self.loop.hold('late'), self.loop.flush,
                     lambda: list(self.loop.map(self.fail, [1]))):
            with self.assertRaises(Bg.ClosedError):
                door()

    def test_what_is_refused_is_freed(self):
        class Data:
            def __call__(self):
                pass

        class Source:
            def work_async(self, data, cancellable, callback):
                pass

            def work_finish(self, result):
                pass

        async def coroutine(data):
            pass

        self.loop.shutdown()
        for door in (self.loop.call, self.loop.post, self.loop.submit, lambda data: self.loop.call_later(0, data),
                     self.loop.add_teardown, lambda data: self.loop.spawn(coroutine(data)),
                     lambda data: self.loop.perform_soon(Source().work_async, data)):
            data = Data()
            gone = weakref.ref(data)
            try:
                door(data)
            except Bg.ClosedError:
                pass
            del data
            self.assertIsNone(gone())
        thread = self.loop._thread
        self.assertEqual((thread.pending, thread.live, thread.teardowns), ({}, {}, {}))

    def test_time_is_measured_and_not_counted(self):
        """Each slice may take longer than it should."""
        times = itertools.count(0, 60)
        gate = Gate(self.loop)
        with mock.patch.object(waiting, 'monotonic', lambda: next(times)), self.assertRaises(TimeoutError):
            self.loop.shutdown(timeout=1)
        self.assertEqual(next(times), 120)
        gate.open()

    def test_deadline_says_what_is_in_the_way(self):
        gate = Gate()
        self.loop.post(gate)
        gate.wait()
        with self.loop.hold('an upload'):
            for cancel in False, True:
                with self.assertRaises(TimeoutError) as caught:
                    self.loop.shutdown(timeout=0.01, cancel_futures=cancel)
                self.assertIn('within 10 ms', str(caught.exception))
                self.assertIn('Gate', str(caught.exception))
                self.assertIn('an upload', str(caught.exception))
        with self.assertRaises(TimeoutError):
            self.loop.shutdown(timeout=0)
        gate.open()
        self.loop.shutdown()

    def test_times(self):
        for wrong in -1, -0.001, math.nan:
            for door in (lambda: self.loop.shutdown(timeout=wrong), lambda: self.loop.flush(wrong),
                         lambda: self.loop.call(int, timeout=wrong), lambda: self.loop.call_later(wrong, int)):
                with self.assertRaises(ValueError):
                    door()
        self.assertEqual(self.loop.call(int, timeout=math.inf), 0)
        self.loop.flush(1e9)
        gate = Gate(self.loop)
        for limit, said in ((1e-9, 1), (0.0011, 2), (0.01, 10)):
            with self.assertRaises(TimeoutError) as caught:
                self.loop.call(self.fail, timeout=limit)
            self.assertIn(f'within {said} ms', str(caught.exception))
        gate.open()
        with self.assertRaises(OverflowError):
            self.loop.call_later(math.inf, int)

    def test_context_manager(self):
        seen = []
        with Bg.Loop('as a context') as loop:
            loop.post(seen.append, 1)
        self.assertEqual(loop.get_state(), Bg.LoopState.STOPPED)
        self.assertEqual(seen, [1])

    def test_context_manager_after_an_exception(self):
        error = KeyError()
        with self.assertRaises(KeyError) as caught:
            with Bg.Loop('as a context') as loop:
                gate = Gate(loop)
                future = loop.submit(self.fail)
                future.add_done_callback(lambda _: gate.open())
                raise error
        self.assertIs(caught.exception, error)
        self.assertTrue(future.cancelled())
        del caught, error

    def test_quit_does_not_wait(self):
        gate = Gate(self.loop)
        future = self.loop.submit(pow, 2, 3)
        self.loop.quit()
        self.assertEqual(self.loop.get_state(), Bg.LoopState.STOPPING)
        gate.open()
        self.loop.shutdown()
        self.assertEqual(future.result(), 8)

    def test_quit_in_cancel_mode(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        self.loop.quit(Bg.ShutdownMode.CANCEL)
        self.assertTrue(future.cancelled())
        gate.open()
        self.loop.shutdown()

    def test_quit_on_its_own_thread(self):
        self.loop.call(self.loop.quit)
        self.loop.shutdown()

    def test_quit_by_others_in_cancel_mode(self):
        """Not through Python's doors, as C code would."""
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        with self.assertRaises(GLib.Error):
            self.loop.shutdown_full(Bg.ShutdownMode.CANCEL, 0, None)
        self.assertTrue(future.cancelled())
        gate.open()

    def test_quit_by_others_before_python_looks(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        super(Bg.Loop, self.loop).quit(Bg.ShutdownMode.CANCEL)
        self.assertFalse(future.done())
        with self.assertRaises(GLib.Error):
            self.loop.shutdown_full(Bg.ShutdownMode.DRAIN, 0, None)
        self.assertFalse(future.done())
        with self.assertRaises(GLib.Error):
            self.loop.shutdown_full(Bg.ShutdownMode.CANCEL, 0, None)
        self.assertTrue(future.cancelled())
        gate.open()

    def test_quit_by_others_that_python_never_sees(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        super(Bg.Loop, self.loop).quit(Bg.ShutdownMode.CANCEL)
        self.assertFalse(future.done())
        gate.open()
        self.loop.shutdown()
        self.assertTrue(future.cancelled())

    def test_asynchronous_shutdown_in_cancel_mode(self):
        gate = Gate(self.loop)
        future = self.loop.submit(self.fail)
        self.loop.shutdown_async(Bg.ShutdownMode.CANCEL, -1, None, None)
        self.assertTrue(future.cancelled())
        gate.open()

    def test_ended_loops_cancellable_has_no_handler(self):
        def has_handler():
            return GObject.signal_has_handler_pending(
                cancellable, GObject.signal_lookup('cancelled', Gio.Cancellable), 0, True)

        def heed_again():
            thread.reference = reference
            thread.heed()
            return reference()

        thread, cancellable = self.loop._thread, self.loop.get_cancellable()
        reference, thread.reference = thread.reference, heed_again  # as a finalizer might
        thread.heed()
        self.assertTrue(has_handler())
        self.loop.shutdown()
        self.assertFalse(has_handler())
        thread.heed()
        self.assertFalse(has_handler())

    def test_loops_cancellable_cancels_no_functions(self):
        gate = Gate(self.loop)
        future = self.loop.submit(pow, 2, 3)
        self.loop.get_cancellable().cancel()
        gate.open()
        self.assertEqual(future.result(), 8)

    def test_work_may_hand_over_work_during_a_drain(self):
        seen = []

        def chain(n):
            seen.append(n)
            if n:
                self.assertTrue(self.loop.post(chain, n - 1))

        gate = Gate(self.loop)
        self.loop.post(chain, 20)
        self.loop.quit()
        self.assertFalse(self.loop.post(chain, 0))
        gate.open()
        self.loop.shutdown()
        self.assertEqual(seen, list(range(20, -1, -1)))

    def test_flush_waits_for_every_priority(self):
        seen = []
        gate = Gate(self.loop)
        self.loop.post(seen.append, 'low', priority=GLib.PRIORITY_LOW)
        self.loop.post(seen.append, 'default')
        gate.open()
        self.loop.flush()
        self.assertEqual(seen, ['default', 'low'])

    def test_flush_lets_others_run(self):
        gate = Gate(self.loop)
        thread = threading.Thread(target=self.loop.flush)
        thread.start()
        while sys._current_frames()[thread.ident].f_code.co_name != 'check':
            pass
        gate.open()
        thread.join(HANG)
        self.assertFalse(thread.is_alive())

    def test_flush_has_a_deadline(self):
        for on_main in True, False:
            gate = Gate()
            self.loop.post(gate)
            gate.wait()

            def flush():
                with self.assertRaises(TimeoutError) as caught:
                    self.loop.flush(0.15)
                self.assertIn('Gate', str(caught.exception))

            if on_main:
                flush()
            else:
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    pool.submit(flush).result()
            gate.open()


class Drop(LoopTestCase):
    def test_never_blocks_and_runs_everything(self):
        done = threading.Event()
        loop = Bg.Loop('dropped')
        gate = Gate(loop)
        loop.post(done.set)
        reference = weakref.ref(loop)
        del loop
        self.assertIsNone(reference())
        gate.open()
        self.assertTrue(done.wait(HANG))

    def test_on_its_own_thread(self):
        gone = threading.Event()
        box = [Bg.Loop('dropped')]
        weakref.finalize(box[0], gone.set)
        box[0].post(box.clear)
        self.assertTrue(gone.wait(HANG))

    def test_of_a_loop_in_a_cycle(self):
        class Cycle:
            pass

        cycle = Cycle()
        cycle.loop = Bg.Loop('a cycle')
        cycle.self = cycle
        reference = weakref.ref(cycle.loop)
        cycle.loop.post(int)
        del cycle
        gc.collect()
        self.assertIsNone(reference())

    def test_thousand_loops_leave_nothing(self):
        def count():
            return len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd')), len(gc.get_objects())

        def use():
            with Bg.Loop('one of many') as loop:
                loop.submit(int)
                loop.call(int)
                loop.post(int)

        for _ in range(10):
            use()
        gc.collect()
        before = count()
        for _ in range(scaled(1000)):
            use()
        gc.collect()
        threads, fds, objects = count()
        self.assertEqual((threads, fds), before[:2])
        self.assertLess(objects - before[2], 100)


class Teardown(LoopTestCase):
    def test_last_in_first_out_on_the_loops_thread(self):
        seen = []

        def note(name, number=None):
            seen.append((name, number, threading.get_ident()))

        ident = self.loop.call(threading.get_ident)
        self.assertIsNone(self.loop.add_teardown(note, 'first'))
        self.loop.add_teardown(note, 'second', number=2)
        self.loop.shutdown()
        self.assertEqual(seen, [('second', 2, ident), ('first', None, ident)])

    def test_runs_in_cancel_mode_too(self):
        seen = []
        self.loop.add_teardown(seen.append, 1)
        self.loop.shutdown(cancel_futures=True)
        self.assertEqual(seen, [1])

    def test_takes_nothing(self):
        seen = []

        def work():
            seen.append(self.loop.post(self.fail))
            try:
                self.loop.submit(self.fail)
            except Bg.ClosedError as error:
                seen.append(type(error))

        self.loop.add_teardown(work)
        self.loop.shutdown()
        self.assertEqual(seen, [False, Bg.ClosedError])


class Holds(LoopTestCase):
    def test_keeps_the_loop(self):
        hold = self.loop.hold('a reason')
        self.assertIn('a reason', repr(hold))
        for cancel in False, True:
            with self.assertRaises(TimeoutError) as caught:
                self.loop.shutdown(timeout=0.001, cancel_futures=cancel)
            self.assertIn('a reason', str(caught.exception))
        hold.release()
        hold.release()
        self.loop.shutdown()
        hold.release()

    def test_is_a_context_manager(self):
        with self.loop.hold('a reason') as hold:
            self.assertEqual(self.loop.get_stats().holds, 1)
        self.assertEqual(self.loop.get_stats().holds, 0)
        hold.release()

    def test_that_comes_as_python_leaves_is_released(self):
        """C has given it, and whoever releases all has not seen it yet."""
        hold = native.hold

        def hold_and_leave(*arguments):
            number = hold(*arguments)
            self.loop._thread.leave()
            return number

        with mock.patch.object(native, 'hold', hold_and_leave), self.assertRaises(Bg.ClosedError):
            self.loop.hold('late')
        self.assertEqual(self.loop.get_stats().holds, 0)

    def test_keeps_the_object(self):
        loop = Bg.Loop('held')
        reference = weakref.ref(loop)
        hold = loop.hold('a reason')
        del loop
        self.assertIsNotNone(reference())
        hold.release()
        self.assertIsNone(reference())

    def test_dropped_it_warns_and_releases(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            self.loop.hold('forgotten')
            gc.collect()
        self.assertEqual([each.category for each in caught], [ResourceWarning])
        self.assertIn('forgotten', str(caught[0].message))
        self.loop.shutdown()


class Default(LoopTestCase):
    def tearDown(self):
        Bg.Loop.reset_default(-1)
        super().tearDown()

    def test_is_shared(self):
        first, second = Bg.Loop.default(), Bg.Loop.default()
        self.assertIs(first, second)
        self.assertIs(Bg.Loop.dup_default(), first)
        self.assertEqual(first.get_name(), 'default')

    def test_ends_with_its_last_reference(self):
        loop = Bg.Loop.default()
        thread = loop.call(threading.current_thread)
        reference = weakref.ref(loop)
        del loop
        self.assertIsNone(reference())
        self.assertIsNot(Bg.Loop.default().call(threading.current_thread), thread)

    def test_starts_anew_after_a_shutdown(self):
        loop = Bg.Loop.default()
        loop.shutdown()
        another = Bg.Loop.default()
        self.assertIsNot(another, loop)
        self.assertEqual(another.call(int), 0)

    def test_from_many_threads(self):
        loops = []
        barrier = threading.Barrier(4)

        def work():
            barrier.wait(HANG)
            for _ in range(scaled(200)):
                loop = Bg.Loop.default()
                assert loop.call(loop.is_current)
            loops.append(loop)

        keeper = Bg.Loop.default()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
        self.assertEqual(loops, [keeper] * 4)

    def test_comes_and_goes_in_many_threads(self):
        errors = []

        def work():
            try:
                for _ in range(scaled(100)):
                    self.assertEqual(Bg.Loop.default().submit(int).result(), 0)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
            self.assertFalse(thread.is_alive())
        self.assertEqual(errors, [])


class Looking(LoopTestCase):
    def test_statistics_count_each_piece_of_work(self):
        before = self.loop.get_stats()
        for _ in range(10):
            self.loop.call(int)
            self.loop.submit(int).result()
            self.loop.post(int)
        self.loop.call(lambda: None)
        stats = self.loop.get_stats()
        self.assertEqual(stats.posted - before.posted, 31)
        self.loop.shutdown()
        stats = self.loop.get_stats()
        self.assertEqual((stats.run - before.run, stats.cancelled - before.cancelled), (31, 0))
        self.assertEqual(stats.refused, 0)

    def test_statistics_do_not_count_waiting(self):
        gate = Gate(self.loop)
        future = self.loop.submit(threading.Event().wait, 0.01)
        before = self.loop.get_stats().posted
        self.loop.quit()
        gate.open()
        future.result()
        with Bg.Loop('slow') as slow:
            slow.call(threading.Event().wait, 0.01)
            stats = slow.get_stats()
            self.assertEqual((stats.posted, stats.cancelled), (1, 0))
        stats = self.loop.get_stats()
        self.assertEqual((stats.posted, stats.refused, stats.cancelled), (before, 0, 0))

    def test_step_by_step(self):
        seen = []
        Bg.test_pause(self.loop)
        self.loop.post(seen.append, 1)
        self.loop.post(seen.append, 2)
        with self.assertRaises(Bg.WouldDeadlockError):
            self.loop.call(self.fail)
        self.assertEqual(seen, [])
        self.assertEqual(Bg.test_step(self.loop), 1)
        self.assertEqual(seen, [1])
        self.assertEqual(Bg.test_run_until_idle(self.loop), 1)
        self.assertEqual(seen, [1, 2])
        self.assertEqual(Bg.test_step(self.loop), 0)
        self.assertFalse(waiting.waits_in_python(self.loop._thread))
        Bg.test_resume(self.loop)
        self.assertTrue(waiting.waits_in_python(self.loop._thread))
        self.assertEqual(self.loop.call(int), 0)
