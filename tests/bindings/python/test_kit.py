# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bgloop.testing and the plugin for pytest: tests that leave something behind fail, and it is named."""

import asyncio
import gc
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
import unittest.mock

import bgloop.testing
from util import HANG, Bg, Gate, LoopTestCase

# What a test does with its loop: what must be said of it, or None if it is a good one.
CASES = {
    'nothing': ('pass', None),
    'work': ('loop.call(int); loop.post(int); loop.submit(int); loop.run(asyncio.sleep(0))', None),
    'other_loop_that_ends': ('with bgloop.Loop("other") as other: other.post(int)', None),
    'garbage': ('cycle = [bgloop.Loop("garbage")]; cycle.append(cycle)', None),
    'shutdown': ('loop.shutdown()', None),
    'thread_that_ends': ('threading.Thread(target=time.sleep, args=(0.01,)).start()', None),
    'default_loop_that_ends': ('bgloop.Loop.default().call(int)', None),
    'delayed_work': ('loop.call_later(1000, int)', None),
    'loop': ('kept.append(bgloop.Loop("forgotten"))', 'forgotten'),
    'stopped_loop': ('kept.append(bgloop.Loop("forgotten")); kept[-1].shutdown()', 'forgotten'),
    'default_loop': ('kept.append(bgloop.Loop.default())', 'default'),
    'hold': ('kept.append(loop.hold("an upload"))', 'an upload'),
    'operation': ('loop.perform_soon(Source().never_async)', 'never_async'),
    'coroutine': ('loop.spawn(wait_for_ever())', 'wait_for_ever is pending'),
    'coroutine_elsewhere': ('kept.append(bgloop.Loop("other")); kept[-1].spawn(wait_for_ever())',
                            'wait_for_ever is pending'),
    'function': ('loop.post(kept_gate.wait)', 'Event.wait'),
    'thread': ('threading.Thread(target=kept_gate.wait, name="left alone", daemon=True).start()', 'left alone'),
}

COMMON = '''
import asyncio, threading, time
import bgloop

kept = []
kept_gate = threading.Event()
older = bgloop.Loop('older')
older.spawn(asyncio.sleep(1000))
older_thread = threading.Thread(target=kept_gate.wait, name='older', daemon=True)
older_thread.start()

async def wait_for_ever():
    await asyncio.Event().wait()

class Source:
    def never_async(self, cancellable, callback):
        kept.append(callback)

    def never_finish(self, result):
        pass

def clean_up():
    """What the tests have left, so that the program can end."""
    kept_gate.set()
    kept.clear()
'''


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, 'w') as file:
        file.write(text)
    return path


# Those that are good get all the time that they need, the others no more than they must have.
ENOUGH = '5000'
PARTS = ({name: case for name, case in CASES.items() if case[1] is None}, ENOUGH), \
        ({name: case for name, case in CASES.items() if case[1] is not None}, '50')


def run(*arguments, timeout='5000', cwd=None, **environment):
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=HANG, cwd=cwd,
                             env={**os.environ, 'BG_TEST_TIMEOUT': timeout, **environment})
    return process.returncode, process.stdout + process.stderr


class Results(unittest.TestCase):
    def check_parts(self):
        for cases, timeout in PARTS:
            results, output = self.run_cases(cases, timeout)
            # Where the machine is busy the test's own loop had too little time as well, and that was said.
            late = {name: case for name, case in cases.items()
                    if 'nothing is in the way any more' in results.get(name, '')}
            if late:
                more, more_output = self.run_cases(late, ENOUGH)
                results.update(more)
                output += more_output
            self.check_results(cases, results, output)
            self.assertNotIn('older', output)

    def check_results(self, cases, results, output):
        """results: what was said of each test that has failed."""
        for name, (_, left) in cases.items():
            with self.subTest(name):
                if left is None:
                    self.assertNotIn(name, results, output)
                else:
                    self.assertIn(left, results.get(name, 'nothing was said'), output)


class Unittest(Results):
    def test_each_kind_of_left_over(self):
        self.check_parts()

    def run_cases(self, cases, timeout):
        text = COMMON + 'import unittest\nfrom bgloop.testing import LoopTestCase\n' \
            'class Tests(LoopTestCase):\n'
        for name, (code, _) in cases.items():
            text += f'    def test_{name}(self):\n        loop = self.loop\n        {code}\n'
        text += textwrap.dedent('''
            def tearDownModule():
                clean_up()

            unittest.main()
        ''')
        with tempfile.TemporaryDirectory() as folder:
            _, output = run(write(folder, 'program.py', text), timeout=timeout)
        results = dict(re.findall(r'^FAIL: test_(\w+) .*?^AssertionError: (.*?)^$', output, re.DOTALL | re.MULTILINE))
        return results, output

    def test_a_mixin_and_a_base(self):
        class Base(unittest.TestCase):
            def setUp(self):
                self.base_was_set_up = True

        class Mixed(LoopTestCase, Base):
            def test(self):
                assert self.base_was_set_up
                assert self.loop.get_name() == 'test'
                assert self.loop.call(int) == 0

        result = unittest.TestResult()
        case = Mixed('test')
        case.run(result)
        self.assertEqual((result.failures, result.errors), ([], []))
        self.assertIsNone(case.loop)

    def test_the_loop_is_there_for_cleanups_and_ends_then(self):
        seen = []

        class Case(LoopTestCase):
            def tearDown(self):
                loop = self.loop
                seen.append(loop.call(int))
                super().tearDown()
                seen.append(self.loop)
                seen.append(loop.get_state())

            def test(self):
                pass

        result = unittest.TestResult()
        Case('test').run(result)
        self.assertTrue(result.wasSuccessful())
        self.assertEqual(seen, [0, None, Bg.LoopState.STOPPED])

    def test_a_test_that_has_failed_is_reported_once(self):
        class Case(LoopTestCase):
            def test(self):
                loop = Bg.Loop('in the traceback')
                loop.shutdown()
                self.fail('on purpose')

        result = unittest.TestResult()
        Case('test').run(result)
        self.assertEqual(len(result.failures + result.errors), 1)
        self.assertIn("    self.fail('on purpose')", result.failures[0][1])
        self.assertNotIn('testing.py', result.failures[0][1])

    def test_a_test_that_runs_again_is_looked_at_again(self):
        kept = []

        class Case(LoopTestCase):
            def test(self):
                kept.append(len(kept) + 1)
                if kept[-1] == 1:
                    self.fail('at first')
                elif kept[-1] == 2:
                    kept[-1] = self.loop.hold('an upload')
                elif kept[-1] == 3:
                    kept[-1] = Bg.Loop('another')

        result = unittest.TestResult()
        case = Case('test')
        with unittest.mock.patch.dict(os.environ, BG_TEST_TIMEOUT='50'):
            for _ in range(4):
                case.run(result)
        kept[1].release()
        kept[2].shutdown()
        self.assertEqual([(text.count('an upload'), text.count('another')) for _, text in result.failures],
                         [(0, 0), (1, 0), (0, 1)])

    def test_what_has_not_ended_in_time_is_cancelled(self):
        futures = []

        class Case(LoopTestCase):
            def test(self):
                futures.append(self.loop.spawn(asyncio.Event().wait()))

        result = unittest.TestResult()
        with unittest.mock.patch.dict(os.environ, BG_TEST_TIMEOUT='50'):
            Case('test').run(result)
        self.assertEqual(len(result.failures), 1)
        self.assertTrue(futures.pop().cancelled())


    def test_what_an_exception_has_left_is_not_looked_for(self):
        class Case(LoopTestCase):
            @unittest.expectedFailure
            def test_expected(self):
                loop = self.loop
                loop.call(self.fail)

            def test_skipped(self):
                loop = self.loop
                loop.call(self.skipTest, 'on purpose')

            def test_parts(self):
                with self.subTest('one'):
                    self.loop.call(self.fail)

        for name, kind in ('test_expected', 'expectedFailures'), ('test_skipped', 'skipped'), ('test_parts', 'failures'):
            result = unittest.TestResult()
            Case(name).run(result)
            told = {each: len(getattr(result, each)) for each in ('errors', 'failures', 'expectedFailures', 'skipped')}
            self.assertEqual(told, {**dict.fromkeys(told, 0), kind: 1}, name)


class AssertNoLoops(unittest.TestCase):
    def test_says_what_is_there(self):
        bgloop.testing.assert_no_loops()
        loop = Bg.Loop('still there')
        os.environ['BG_TEST_TIMEOUT'] = '10'
        try:
            with self.assertRaises(AssertionError) as caught:
                bgloop.testing.assert_no_loops()
        finally:
            del os.environ['BG_TEST_TIMEOUT']
        self.assertIn('still there', str(caught.exception))
        loop.shutdown()
        del loop
        bgloop.testing.assert_no_loops()

    def test_collects_what_is_in_a_cycle(self):
        gc.disable()
        try:
            cycle = [Bg.Loop('garbage')]
            cycle.append(cycle)
            del cycle
            bgloop.testing.assert_no_loops()
        finally:
            gc.enable()

    def test_waits_for_what_is_about_to_end(self):
        loop = Bg.Loop('dropped')
        gate = Gate(loop)
        threading.Timer(0.05, gate.open).start()
        del loop
        bgloop.testing.assert_no_loops()


@unittest.skipUnless(importlib.util.find_spec('pytest'), 'pytest is not installed (on Debian: python3-pytest)')
class Pytest(Results):
    def pytest(self, folder, *arguments, **environment):
        return run('-m', 'pytest', '-p', 'no:cacheprovider', '-p', 'no:warnings', '-rA', '--tb=short', '--rootdir', folder, *arguments,
                   cwd=folder, **environment)

    def write_tests(self, folder, cases):
        text = COMMON
        for name, (code, _) in cases.items():
            text += f'def test_{name}(bg_loop):\n    loop = bg_loop\n    {code}\n'
        write(folder, 'test_program.py', text)
        write(folder, 'conftest.py', 'import sys\ndef pytest_sessionfinish(session):\n'
              '    sys.modules["test_program"].clean_up()\n')

    def test_is_found_by_its_entry_point(self):
        points = importlib.metadata.entry_points()
        points = points.select(group='pytest11') if hasattr(points, 'select') else points['pytest11']
        self.assertEqual([each.value for each in points if each.name == 'bgloop'], ['bgloop.pytest_plugin'])

    def test_each_kind_of_left_over(self):
        self.check_parts()

    def run_cases(self, cases, timeout):
        with tempfile.TemporaryDirectory() as folder:
            self.write_tests(folder, cases)
            _, output = self.pytest(folder, timeout=timeout)
        results = dict(re.findall(r'^_+ ERROR at teardown of test_(\w+) _+\n(.*?)\n(?=[_=]{10})', output,
                                  re.DOTALL | re.MULTILINE))
        return results, output

    def test_what_has_not_ended_in_time_is_cancelled(self):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'import asyncio\nfutures = []\n'
                  'def test_bad(bg_loop):\n    futures.append(bg_loop.spawn(asyncio.Event().wait()))\n'
                  'def test_good():\n    assert futures.pop().cancelled()\n')
            status, output = self.pytest(folder, timeout='50')
        self.assertEqual(status, 1, output)
        self.assertIn('ERROR test_program.py::test_bad', output)
        self.assertIn('2 passed, 1 error', output)

    def test_is_turned_off(self):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'import bgloop\nkept = []\ndef test():\n    kept.append(bgloop.Loop())\n')
            status, output = self.pytest(folder, '-p', 'no:bgloop', '-o', 'bgloop_check_all=true')
            self.assertEqual(status, 0, output)
            status, output = self.pytest(folder, timeout='50')
            self.assertEqual(status, 0, output)
            write(folder, 'test_program.py', 'def test(bg_loop):\n    pass\n')
            status, output = self.pytest(folder, '-p', 'no:bgloop')
            self.assertIn("fixture 'bg_loop' not found", output)

    def test_all_tests_if_that_is_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'import bgloop\nkept = []\n'
                  'def test_bad():\n    kept.append(bgloop.Loop("forgotten"))\n'
                  'def test_good():\n    bgloop.Loop().shutdown()\n')
            status, output = self.pytest(folder, '-o', 'bgloop_check_all=true', timeout='50')
        self.assertEqual(status, 1, output)
        self.assertIn('ERROR test_program.py::test_bad', output)
        self.assertIn('forgotten', output)
        self.assertIn('2 passed, 1 error', output)

    def test_a_test_that_has_failed_is_reported_once(self):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'def test(bg_loop):\n    hold = bg_loop.hold("in the traceback")\n'
                  '    hold.release()\n    assert False, "on purpose"\n')
            status, output = self.pytest(folder)
        self.assertEqual(status, 1, output)
        self.assertIn('1 failed in', output)

    def test_what_an_exception_has_left_is_not_looked_for(self):
        tests = [f'@pytest.mark.xfail({options})\ndef test_{i}(bg_loop):\n    bg_loop.call(lambda: 1 / 0)\n'
                 for i, options in enumerate(['', 'strict=True', 'raises=ZeroDivisionError'])]
        tests += ['def test_skipped(bg_loop):\n    loop = bg_loop\n    pytest.skip("on purpose")\n']
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'import pytest\n' + '\n'.join(tests))
            status, output = self.pytest(folder)
        self.assertEqual(status, 0, output)
        self.assertIn('1 skipped, 3 xfailed in', output)

    def test_does_not_import_the_library_for_others(self):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, 'test_program.py', 'import sys\ndef test():\n    assert "_bgloop" not in sys.modules\n')
            status, output = self.pytest(folder)
        self.assertEqual(status, 0, output)


class Timeout(unittest.TestCase):
    def test_is_how_long_is_waited(self):
        """A function that ends after a while: with no time for it the test fails, without a limit it does not."""
        text = COMMON + textwrap.dedent('''
            import unittest
            from bgloop.testing import LoopTestCase

            class Tests(LoopTestCase):
                def test_slow(self):
                    self.loop.post(time.sleep, 0.5)

                def test_fast(self):
                    self.loop.post(int)

            unittest.main()
        ''')
        with tempfile.TemporaryDirectory() as folder:
            path = write(folder, 'program.py', text)
            self.assertIn('FAIL: test_slow', run(path, timeout='50')[1])
            self.assertIn('OK', run(path, timeout='-1')[1])
