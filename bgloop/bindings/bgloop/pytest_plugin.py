# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""For pytest: the fixture bg_loop, a loop for the test.

A test that uses it fails if it leaves anything behind: a loop, a hold, an operation, a coroutine or a
thread. With bgloop_check_all = true in pytest's configuration that is so for all tests.
"""

import pytest


def pytest_addoption(parser):
    parser.addini('bgloop_check_all', 'whether all tests have to leave nothing behind', type='bool', default=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    yield
    raised = call.excinfo is not None
    item._bgloop_raised = raised if call.when == 'setup' else raised or _has_raised(item)


def _has_raised(item):
    """Whether an exception has left the test: because it has failed, as expected or not, or skips itself."""
    return getattr(item, '_bgloop_raised', False)


@pytest.fixture
def _bgloop_check(request):
    """Set up before the test's loop, so that it looks when that is gone."""
    from .testing import Mark

    mark = Mark()
    yield
    request.node.funcargs.pop('bg_loop', None)  # where pytest keeps it
    # What such a test has is in the traceback.
    left = mark.describe_left() if not _has_raised(request.node) else None
    if left is not None:
        pytest.fail(f'left behind: {left}', pytrace=False)


@pytest.fixture(autouse=True)
def _bgloop_check_all(request):
    if request.config.getini('bgloop_check_all'):
        request.getfixturevalue('_bgloop_check')


@pytest.fixture
def bg_loop(request, _bgloop_check):
    """A loop that is named after the test. When the test is over it runs what it has accepted, and ends."""
    from . import Bg
    from .testing import end_loop

    loop = Bg.Loop(request.node.name)
    yield loop
    left = end_loop(loop)
    if left is not None:
        loop.quit(Bg.ShutdownMode.CANCEL)
        pytest.fail(f'left behind: {left}', pytrace=False)
