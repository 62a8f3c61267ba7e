# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Leaving Python with loops that have something to do: each test is a program."""

import signal
import subprocess
import sys
import textwrap
import threading
import unittest

from util import HANG, run_program, run_script, scaled

BEGIN = '''
import asyncio, atexit, gc, os, sys, threading, time
import bgloop
from bgloop import Bg
from gi.repository import Gio, GLib

def say(*words):
    print(*words, flush=True)

def run_until_left(loop):
    """What is in the queue behind it has its turn when Python is leaving."""
    while loop.get_state() == Bg.LoopState.RUNNING:
        time.sleep(0.001)

'''


class Exit(unittest.TestCase):
    def check(self, text, *lines, error='', returncode=0, run=run_program):
        """A program ends, has said these lines, and nothing about errors."""
        process = run(BEGIN + textwrap.dedent(text))
        self.assertEqual(process.returncode, returncode, process.stdout + process.stderr)
        self.assertEqual(process.stdout.splitlines(), list(lines), process.stderr)
        if error:
            self.assertIn(error, process.stderr)
        else:
            self.assertEqual(process.stderr, '')

    def test_nothing_to_do(self):
        self.check('loop = Bg.Loop(); say(loop.call(pow, 2, 5))', '32')

    def test_functions_run_to_their_end(self):
        for run in run_program, run_script:
            self.check('''
                loop = Bg.Loop()
                loop.post(time.sleep, 0.05)
                for i in range(3):
                    loop.post(say, 'posted', i)
                loop.submit(say, 'submitted')
            ''', 'posted 0', 'posted 1', 'posted 2', 'submitted', run=run)

    def test_teardown_functions_run(self):
        self.check('''
            loop = Bg.Loop()
            loop.add_teardown(say, 'first')
            loop.add_teardown(say, 'second')
        ''', 'second', 'first')

    def test_coroutines_are_cancelled(self):
        self.check('''
            async def coroutine(name):
                try:
                    say(name)
                    await asyncio.Event().wait()
                finally:
                    say(name, 'cancelled')

            loop = Bg.Loop()
            loop.call(loop.spawn, coroutine('running'))
            loop.flush()
            loop.post(run_until_left, loop)
            loop.spawn(coroutine('waiting'))
        ''', 'running', 'running cancelled')

    def test_operations_are_cancelled(self):
        self.check('''
            class Source:
                def work_async(self, cancellable, callback):
                    cancellable.connect(lambda *_: say('cancelled'))
                    self.callback = callback

            loop, source = Bg.Loop(), Source()
            future = loop.perform_soon(source.work_async, finish=say)
            loop.flush()
            future.add_done_callback(lambda future: say(future.cancelled()))
        ''', 'True', 'cancelled')

    def test_real_operations(self):
        self.check('''
            loop = Bg.Loop()
            process = Gio.Subprocess.new(['sleep', '60'], Gio.SubprocessFlags.NONE)
            loop.perform_soon(process.wait_async)
            for _ in range(20):
                loop.perform_soon(Gio.File.new_for_path(sys.executable).load_contents_async)
            atexit.register(process.force_exit)
        ''')

    def test_delayed_work_is_dropped(self):
        self.check('''
            loop = Bg.Loop()
            loop.call_later(1000, say, 'late')
            loop.call_later(30, say, 'late')
        ''')

    def test_holds_keep_nobody(self):
        self.check('loop = Bg.Loop(); hold = loop.hold("for ever")')

    def test_holds_of_others_keep_nobody(self):
        self.check('''
            loop = Bg.Loop()
            super(Bg.Loop, loop).hold('by C')
            loop.post(say, 'ran')
            source = GLib.timeout_source_new(1)
            source.set_callback(lambda *_: True)
            source.attach(loop.get_context())
        ''', 'ran')

    def test_nothing_new_is_taken(self):
        self.check('''
            def late():
                for door in (lambda: loop.call(say, 'late'), lambda: loop.submit(say, 'late'),
                             lambda: loop.call_later(0, say, 'late'), lambda: loop.hold('late'), Bg.Loop,
                             Bg.Loop.default):
                    try:
                        door()
                    except Bg.ClosedError:
                        pass
                    else:
                        say('taken')
                say(loop.post(say, 'late'))

            def work():
                entered.set()
                run_until_left(loop)
                say(loop.post(say, 'late'))
                try:
                    loop.spawn(asyncio.sleep(0))
                except Bg.ClosedError:
                    say('closed')

            atexit.register(late)
            loop = Bg.Loop()
            entered = threading.Event()
            loop.post(work)
            entered.wait()
        ''', 'False', 'closed', 'False')

    def test_a_module_that_is_an_object_is_told_why(self):
        """Its finalizer runs when hardly a module is left."""
        self.check('''
            class Api:
                def __init__(self):
                    self.loop = bgloop.Loop('api')
                    self.write, self.closed = os.write, bgloop.ClosedError
                def __del__(self):
                    try:
                        self.loop.call(print)
                    except self.closed as error:
                        self.write(1, error.message.encode())
            sys.modules['api'] = Api()
        ''', 'The loop "api" takes no more work: Python is leaving')

    def test_dropped_loops(self):
        self.check('''
            Bg.Loop('dropped').post(time.sleep, 0.05)
            loop = Bg.Loop('dropped, too')
            loop.post(time.sleep, 0.05)
            loop.post(say, 'ran')
            del loop
        ''', 'ran')

    def test_default_loop(self):
        self.check('loop = Bg.Loop.default(); loop.post(time.sleep, 0.01); loop.post(say, "ran")', 'ran')

    def test_in_a_cycle(self):
        self.check('''
            gc.disable()
            class Cycle: pass
            cycle = Cycle()
            cycle.self, cycle.loop = cycle, Bg.Loop()
            cycle.loop.post(say, 'ran')
            del cycle
        ''', 'ran')

    def test_asyncio_was_used(self):
        self.check('''
            loop = Bg.Loop()
            say(loop.run(asyncio.sleep(0.001, 'ran')))
        ''', 'ran')

    def test_many_loops(self):
        self.check('''
            loops = [Bg.Loop() for _ in range(50)]
            for loop in loops:
                loop.post(int)
                loop.spawn(asyncio.sleep(1000))
        ''')

    def test_stopped_loops(self):
        self.check('''
            loop = Bg.Loop()
            loop.shutdown()
            other = Bg.Loop()
            other.quit(Bg.ShutdownMode.CANCEL)
        ''')

    def test_raw_doors(self):
        self.check('''
            loop = Bg.Loop()
            loop.call_async(GLib.PRIORITY_DEFAULT, -1, lambda *_: True, (None,), None, say)
            loop.invoke(GLib.PRIORITY_DEFAULT, lambda *_: time.sleep(0.05))
            source = GLib.timeout_source_new(1)
            source.set_callback(lambda *_: True)
            loop.attach(source)
        ''')

    def test_after_an_exception(self):
        self.check('''
            loop = Bg.Loop()
            loop.post(say, 'ran')
            raise KeyError('this is part of the test')
        ''', 'ran', error='this is part of the test', returncode=1)

    def test_status_is_the_programs(self):
        self.check('loop = Bg.Loop(); loop.post(say, "ran"); sys.exit(7)', 'ran', returncode=7)

    def test_daemon_threads_that_go_on(self):
        for _ in range(scaled(3)):
            self.check('''
                def use():
                    try:
                        while True:
                            loop.call(int)
                            loop.submit(int).result()
                            loop.post(int)
                    except (Bg.ClosedError, bgloop.ClosedError):
                        pass

                loop = Bg.Loop()
                for _ in range(3):
                    threading.Thread(target=use, daemon=True).start()
                time.sleep(0.02)
            ''')

    def test_threads_that_wait(self):
        self.check('''
            def work():
                entered.set()
                go.wait()
                time.sleep(0.05)
                return 'returned'

            def call():
                say(loop.call(work))
                said.release()

            loop = Bg.Loop()
            entered, go, said = threading.Event(), threading.Event(), threading.Semaphore(0)
            for daemon in False, True:
                threading.Thread(target=call, daemon=daemon).start()
            entered.wait()
            while loop.get_stats().queued == 0:
                pass
            go.set()
            for _ in range(2):  # Python does not wait for daemons
                atexit.register(said.acquire, timeout=30)
        ''', 'returned', 'returned')

    def test_function_that_does_not_return_is_ended_by_ctrl_c(self):
        for forever in 'time.sleep(10000)', 'while True: pass', 'threading.Event().wait()':
            process = subprocess.Popen(
                [sys.executable, '-c', BEGIN + textwrap.dedent('''
                    def work():
                        say('entered')
                        FOREVER

                    loop = Bg.Loop()
                    loop.post(work)
                    atexit.register(say, 'leaving')
                ''').replace('FOREVER', forever)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.assertEqual(process.stdout.readline().strip(), 'entered')
            timer = threading.Event()
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                timer.wait(0.3)
            self.assertEqual(process.wait(HANG), -signal.SIGINT)
            process.stdout.close()
            process.stderr.close()

    def test_loops_that_come_while_others_are_ended(self):
        self.check('''
            from gi.repository import GObject

            def make():
                global other
                other = GObject.new(Bg.Loop)  # as C makes them
                other.add_teardown(say, 'ended')
                other.post(say, 'ran')

            loop, other = Bg.Loop(), None
            loop.add_teardown(make)
        ''', 'ran', 'ended')

    def test_thread_that_cannot_be_ended_stands_still(self):
        self.check('''
            import types
            from _bgloop import native

            loop, go = Bg.Loop(), threading.Event()
            loop.post(go.wait)
            native.time = types.SimpleNamespace(sleep=lambda seconds: go.set())
            native.park(loop._thread.context)
            say(go.is_set())
            os._exit(0)
        ''', 'True')

    def test_many_ends(self):
        """Where the end of a thread and that of Python meet."""
        for i in range(scaled(8)):
            self.check('''
                loop = Bg.Loop()
                loop.submit(int)
                loop.spawn(asyncio.sleep(0))
                other = Bg.Loop('dropped')
                other.post(int)
                del other
            ''')
