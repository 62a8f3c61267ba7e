# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

import gc
import unittest

import gi

gi.require_version('Bg', '1.0')
from gi.repository import Bg


class LoopTestCase(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.assert_no_loops, Bg.test_mark_loops())
        self.loop = Bg.Loop.new(self.id())
        self.addCleanup(self.end_loop)

    def end_loop(self):
        self.loop.quit(Bg.ShutdownMode.DRAIN)
        del self.loop

    def assert_no_loops(self, since):
        gc.collect()
        left = Bg.test_describe_loops(since, Bg.test_get_timeout())
        self.assertIsNone(left, 'left behind: ' + str(left))


class CounterTest(LoopTestCase):
    def setUp(self):
        super().setUp()
        self.sum = 0

    def add_one(self, *_):
        self.sum += 1

    def test_work_is_done(self):
        self.assertTrue(self.loop.post(self.add_one))
        self.loop.flush()
        self.assertEqual(self.sum, 1)

    def test_step_by_step(self):
        Bg.test_pause(self.loop)
        self.loop.post(self.add_one)
        self.loop.post(self.add_one)
        self.assertEqual(self.sum, 0)

        self.assertEqual(Bg.test_step(self.loop), 1)
        self.assertEqual(self.sum, 1)
        self.assertEqual(Bg.test_run_until_idle(self.loop), 1)
        self.assertEqual(self.sum, 2)

    def test_default_loop(self):
        shared = Bg.Loop.dup_default()
        shared.post(self.add_one)
        shared.flush()
        self.assertEqual(self.sum, 1)
        Bg.Loop.reset_default(Bg.test_get_timeout())


if __name__ == '__main__':
    unittest.main()
