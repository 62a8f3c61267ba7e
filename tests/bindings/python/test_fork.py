# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fork(): in the child the parent's loops are not there; the parent goes on."""

import os
import textwrap
import unittest

from util import run_program, run_script, scaled

BEGIN = '''
import asyncio, gc, multiprocessing, os, signal, sys, threading, time, warnings
import bgloop
from bgloop import Bg
from gi.repository import Gio, GLib, GObject

# Since 3.12 to fork beside threads is worth a warning, which is no news here.
warnings.simplefilter('ignore', DeprecationWarning)

def in_child(function):
    """What a function says in a forked child, or how that ended otherwise."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        status = 1
        try:
            function()
            status = 0
        except BaseException as error:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        print('the child ended with', status, flush=True)

def raises(kind, function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except kind:
        return
    raise AssertionError(f'{function} did not raise {kind}')

'''


class Fork(unittest.TestCase):
    def check(self, text, *lines, run=run_program):
        process = run(BEGIN + textwrap.dedent(text))
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)
        self.assertEqual(process.stdout.splitlines(), list(lines), process.stderr)
        self.assertEqual(process.stderr, '')

    def test_every_door_says_so(self):
        for run in run_program, lambda text: run_script(text, check=False):
            self.check('''
                class Source:
                    def work_async(self, cancellable, callback): pass
                    def work_finish(self, result): pass

                def child():
                    coroutines = [asyncio.sleep(0), asyncio.sleep(0)]
                    for door in (lambda: loop.call(int), lambda: loop.submit(int), lambda: loop.map(int, [1]),
                                 lambda: loop.call_later(0, int), lambda: loop.add_teardown(int),
                                 lambda: loop.hold('late'), lambda: loop.perform(Source().work_async),
                                 lambda: loop.perform_soon(Source().work_async),
                                 lambda: loop.run(coroutines[0]), lambda: loop.spawn(coroutines[1]),
                                 loop.flush, loop.shutdown, lambda: loop.shutdown(wait=False)):
                        raises(Bg.ForkedError, door)
                    assert loop.post(int) is False
                    assert [each.cr_frame for each in coroutines] == [None, None]
                    loop.quit()
                    assert not loop.is_current()
                    assert loop.get_stats().posted == 0

                loop = Bg.Loop()
                in_child(child)
                print(loop.call(pow, 2, 5))
                loop.shutdown()
            ''', '32', run=run)

    def test_is_harmless_to_drop_and_to_forget(self):
        self.check('''
            def child():
                global loop, hold, handle, future
                assert handle.cancel() is False
                hold.release()
                loop = hold = handle = future = None
                gc.collect()

            loop = Bg.Loop()
            hold, handle = loop.hold('parent'), loop.call_later(1000, int)
            gate = threading.Event()
            loop.post(gate.wait)
            future = loop.submit(int)
            in_child(child)
            gate.set()
            print(future.result())
            hold.release()
            loop.shutdown()
        ''', '0')

    def test_loops_that_have_ended_or_that_python_does_not_know(self):
        self.check('''
            def child():
                for loop in ended, unknown:
                    for door in (lambda: loop.call(int), lambda: loop.submit(int), lambda: loop.hold('late'),
                                 loop.flush, loop.shutdown, lambda: loop.shutdown(wait=False)):
                        raises(Bg.ForkedError, door)
                    assert loop.post(int) is False

            ended, unknown = Bg.Loop(), GObject.new(Bg.Loop)
            ended.shutdown()
            assert '_thread' not in unknown.__dict__
            in_child(child)
            print(unknown.call(pow, 2, 5))
        ''', '32')

    def test_futures_of_the_parent(self):
        self.check('''
            def child():
                assert done.result() == 0
                assert pending.cancel() is False
                raises(Bg.ForkedError, pending.result)
                raises(Bg.ForkedError, pending.exception)

            loop = Bg.Loop()
            done = loop.submit(int)
            done.result()
            gate = threading.Event()
            loop.post(gate.wait)
            pending = loop.submit(pow, 2, 5)
            in_child(child)
            gate.set()
            print(pending.result())
        ''', '32')

    def test_new_loops_in_the_child(self):
        self.check('''
            def child():
                with Bg.Loop() as new:
                    print(new.call(pow, 2, 6), new.run(asyncio.sleep(0, 'asyncio')), flush=True)
                default = Bg.Loop.default()
                assert default is not first
                print(default.call(pow, 2, 7), flush=True)
                default.shutdown()

            loop, first = Bg.Loop(), Bg.Loop.default()
            loop.run(asyncio.sleep(0))
            in_child(child)
            assert Bg.Loop.default() is first
            print(first.call(pow, 2, 5))
        ''', '64 asyncio', '128', '32')

    def test_child_leaves_as_programs_do(self):
        self.check('''
            loop = Bg.Loop()
            loop.post(int)
            loop.spawn(asyncio.sleep(1000))
            hold = loop.hold('parent')
            pid = os.fork()
            if pid == 0:
                new = Bg.Loop()
                new.post(print, 'child', flush=True)
            else:
                assert os.waitpid(pid, 0)[1] == 0
                print('parent', flush=True)
        ''', 'child', 'parent')

    def test_on_the_loops_thread(self):
        self.check('''
            from _bgloop import waiting

            def fork():
                def child():
                    raises(Bg.ForkedError, loop.call, int)
                    raises(Bg.ForkedError, loop.submit, int)
                    assert threading.current_thread() is threading.main_thread()
                    with Bg.Loop() as new:
                        assert waiting.waits_in_python(new._thread)
                        assert new.call(pow, 2, 5) == 32
                in_child(child)
                return threading.current_thread()

            loop = Bg.Loop('forks')
            thread = loop.call(fork)
            assert loop.call(threading.current_thread) is thread
            print(thread.name)
        ''', 'forks')

    def test_child_speaks_without_gettext(self):
        """Another thread of the parent may have had a lock of it."""
        self.check('''
            from _bgloop import native, text

            def child():
                native.bindtextdomain = native.dgettext = native.dngettext = None
                new = Bg.Loop('new')
                new.shutdown()
                try:
                    new.call(int)
                except Bg.ClosedError as error:
                    print(error.message)
                print(text.say_number('%d loop', '%d loops', 2), flush=True)

            in_child(child)
        ''', 'The loop "new" takes no more work', '2 loops')

    def test_in_a_handler_of_a_shutdown(self):
        """The child is not in that shutdown: its waits are those of any other thread."""
        self.check('''
            from _bgloop import thread, waiting

            def child():
                assert thread.is_plain()
                with Bg.Loop() as new:
                    assert waiting.waits_in_python(new._thread)

            loop = Bg.Loop()
            loop.get_cancellable().connect(lambda *_: in_child(child))
            loop.quit(Bg.ShutdownMode.CANCEL)
            loop.shutdown()
            print('done')
        ''', 'done')

    def test_that_returns_from_a_handler_of_a_shutdown(self):
        """The child comes back from a shutdown that is none of its own."""
        for call in 'quit(Bg.ShutdownMode.CANCEL)', 'shutdown(cancel_futures=True)':
            self.check(f'''
                from _bgloop import thread, waiting

                loop = Bg.Loop()
                child = []
                loop.get_cancellable().connect(lambda *_: child.append(os.fork()))
                try:
                    loop.{call}
                except Exception:
                    assert not child[0]
                if not child[0]:
                    with Bg.Loop() as new:
                        fine = thread.is_plain() and waiting.waits_in_python(new._thread)
                    os._exit(0 if fine else 1)
                print(os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]))
                loop.shutdown()
            ''', '0')

    def test_multiprocessing(self):
        self.check('''
            def work(queue):
                queue.put('from the child')

            def start():
                context = multiprocessing.get_context('fork')
                queue = context.SimpleQueue()
                process = context.Process(target=work, args=(queue,))
                process.start()
                result = queue.get()
                process.join()
                return result, process.exitcode

            loop = Bg.Loop()
            loop.post(int)
            print(*start())
            print(*loop.call(start))
            print(loop.call(pow, 2, 5))
        ''', 'from the child 0', 'from the child 0', '32')

    def test_beside_busy_threads(self):
        """Children that are forked off whatever the others do just now.

        They make no loops meanwhile: a lock of GLib's, around its list of contexts, that another thread has at
        the fork stays locked in the child, whoever made the context.
        """
        self.check('''
            def use():
                while not stop.is_set():
                    loop.call(int)
                    loop.submit(int).result()
                    loop.post(int)

            def child():
                with Bg.Loop() as new:
                    assert new.call(pow, 2, 5) == 32

            loop, stop = Bg.Loop(), threading.Event()
            threads = [threading.Thread(target=use) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else N):
                in_child(child)
            stop.set()
            for thread in threads:
                thread.join()
            print('done')
        '''.replace(' else N', f' else {scaled(20)}'), 'done')

    def test_beside_handlers(self):
        """A thread that waits has a handler, and GObject's lock for that is never taken as another forks."""
        self.check('''
            def use():
                while not stop.is_set():
                    loop._thread.heed()
                    loop._thread.disregard()

            loop, stop = Bg.Loop(), threading.Event()
            thread = threading.Thread(target=use)
            thread.start()
            for _ in range(N):
                in_child(Gio.Cancellable)
            stop.set()
            thread.join()
            print('done')
        '''.replace('N)', f'{scaled(100)})'), 'done')

    def test_in_cancelled_child_nothing_is_written_to_the_parent(self):
        self.check('''
            def child():
                loop.quit(Bg.ShutdownMode.CANCEL)
                loop.post(int)

            loop = Bg.Loop()
            future = loop.spawn(asyncio.sleep(0.05, 'undisturbed'))
            in_child(child)
            print(future.result())
        ''', 'undisturbed')


if __name__ == '__main__':
    os.environ.setdefault('G_SLICE', 'always-malloc')
    unittest.main()
