# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

import threading

import bgloop.testing
import pytest


def test_what_is_set_can_be_got(database):
    database.set('colour', 'blue')
    assert database.get('colour') == 'blue'
    assert database.get('nothing') == ''


def test_all_of_it(database):
    for i in range(5):
        database.set(f'key{i}', f'value{i}')
    everything = database.get_all()
    assert set(everything) == set(database.keys())
    assert everything['key3'] == 'value3'


def test_later(database):
    database.set('shape', 'round')
    future = database.get_soon('shape')
    assert future.result() == 'round'


def test_a_deadline(database):
    with pytest.raises(TimeoutError):
        database.wait(1000, timeout=0.05)


def test_from_many_threads(database, port):
    def use(i):
        with type(database)(port) as own:
            own.set(f'thread{i}', str(i))
            results.append(own.get(f'thread{i}') == str(i))

    results = []
    threads = [threading.Thread(target=use, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_clients_share_a_loop(database, port):
    with type(database)(port) as other:
        assert other._loop is database._loop
        thread = other._loop.call(threading.current_thread)
        assert thread.name == 'default'
    assert thread in threading.enumerate()


def test_the_last_one_ends_it(port):
    import over_coroutines

    with over_coroutines.Database(port) as database:
        thread = database._loop.call(threading.current_thread)
    bgloop.testing.assert_no_loops()
    assert thread not in threading.enumerate()
