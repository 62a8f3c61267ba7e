# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

import pathlib
import subprocess
import sys
import threading

import over_coroutines
import over_gio
import pytest


@pytest.fixture(scope='session')
def port():
    """Of a database that runs as long as the tests."""
    with subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name('server.py')], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        yield int(server.stdout.readline())
        server.terminate()


@pytest.fixture(params=[over_coroutines.Database, over_gio.Database], ids=['coroutines', 'gio'])
def database(request, port):
    with request.param(port) as database:
        yield database


def pytest_sessionfinish(session):
    """The suite ends with the thread that it has begun with."""
    assert threading.enumerate() == [threading.main_thread()]
