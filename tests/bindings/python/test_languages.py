# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Python says itself is in the language of the program, as what the library says."""

import asyncio
import gettext
import locale
import os
import pathlib
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'languages'))
import catalogs  # noqa: E402

CATALOGS = os.path.join(os.environ.get('BGLOOP_BUILD_DIR', ''), 'po')
LANGUAGES = (pathlib.Path(__file__).parents[3] / 'po' / 'LINGUAS').read_text(encoding='utf-8').split()
NOT_STARTED = '%s() on the loop "%s" did not start within %d ms: %s'
NOT_STOPPED = 'The loop "%s" has not stopped within %d ms: %s'
PENDING = '%s is pending'
MORE = ('and %d more coroutine', 'and %d more coroutines')
ITSELF = 'This wait could never end: "%s" would wait for itself'
CLOSED = 'The loop "%s" takes no more work'


def say_errors(speaks):
    """A program that prints an error a line."""
    import bgloop
    from gi.repository import GLib

    if speaks:
        locale.setlocale(locale.LC_ALL, '')
    loop = bgloop.Loop('x')
    # The library tells gettext of its catalogs with the first text.
    loop.describe()
    locale.bindtextdomain('bgloop', CATALOGS)

    async def forever():
        await asyncio.sleep(3600)

    def fail(function, *arguments, **options):
        try:
            function(*arguments, **options)
        except (TimeoutError, GLib.Error) as error:
            print(error.args[0] if isinstance(error, TimeoutError) else error.message)

    spawned = [loop.spawn(forever()) for _ in range(10)]
    loop.flush()
    fail(loop.shutdown, timeout=0)
    for coroutine in spawned:
        coroutine.cancel()
    loop.shutdown()
    fail(loop.call, print)

    other = bgloop.Loop('y')
    released = threading.Event()
    other.post(released.wait)
    fail(other.call, print, timeout=0.001)
    released.set()
    other.call(fail, other.shutdown)
    other.shutdown()


@unittest.skipIf(catalogs.missing() is not None, catalogs.missing())
class Languages(unittest.TestCase):
    def say(self, language, *arguments):
        said = catalogs.run_in(language, sys.executable, __file__, 'say', *arguments)
        self.assertEqual(said.returncode, 0, said.stderr)
        return said.stdout.splitlines()

    def check(self, said, translate, translate_number):
        stopped, closed, started, itself = said
        self.assertTrue(stopped.startswith(translate(NOT_STOPPED) % ('x', 0, '')), stopped)
        self.assertIn(translate(PENDING) % 'say_errors.<locals>.forever', stopped)
        more = [translate_number(*MORE, n) % n for n in range(1, 10)]
        self.assertTrue(any(text in stopped for text in more), stopped)
        self.assertEqual(closed, translate(CLOSED) % 'x')
        self.assertTrue(started.startswith(translate(NOT_STARTED) % ('builtins.print', 'y', 1, '')), started)
        self.assertEqual(itself, translate(ITSELF) % 'y')

    def test_each_language(self):
        for language in LANGUAGES:
            with self.subTest(language):
                catalog = gettext.translation('bgloop', CATALOGS, [language])
                self.check(self.say(language, 'setlocale'), catalog.gettext, catalog.ngettext)
                self.check(self.say(language), str, lambda one, many, n: one if n == 1 else many)


if __name__ == '__main__' and sys.argv[1:2] == ['say']:
    say_errors(len(sys.argv) > 2)
