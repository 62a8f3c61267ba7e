# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

import gc

import gi
import pytest

gi.require_version('Bg', '1.0')
from gi.repository import Bg


@pytest.fixture(autouse=True)
def no_loops_left(request):
    since = Bg.test_mark_loops()
    yield
    request.node.funcargs.clear()  # where pytest keeps the loop
    gc.collect()
    left = Bg.test_describe_loops(since, Bg.test_get_timeout())
    assert left is None, 'left behind: ' + left


@pytest.fixture
def loop(request, no_loops_left):
    loop = Bg.Loop.new(request.node.name)
    yield loop
    loop.quit(Bg.ShutdownMode.DRAIN)


class Counter:
    def __init__(self):
        self.sum = 0

    def add_one(self, *_):
        self.sum += 1


def test_work_is_done(loop):
    counter = Counter()
    assert loop.post(counter.add_one)
    loop.flush()
    assert counter.sum == 1


def test_step_by_step(loop):
    counter = Counter()
    Bg.test_pause(loop)
    loop.post(counter.add_one)
    loop.post(counter.add_one)
    assert counter.sum == 0

    assert Bg.test_step(loop) == 1
    assert counter.sum == 1
    assert Bg.test_run_until_idle(loop) == 1
    assert counter.sum == 2


def test_default_loop():
    counter = Counter()
    shared = Bg.Loop.dup_default()
    shared.post(counter.add_one)
    shared.flush()
    assert counter.sum == 1
    Bg.Loop.reset_default(Bg.test_get_timeout())
