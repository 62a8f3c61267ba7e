#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A loop from Python, through the typelib alone (TAP)."""

import faulthandler
import functools
import gc
import sys
import threading
import traceback
import weakref

import gi

# Without the override, should one be installed.
sys.modules['gi.overrides.Bg'] = None

gi.require_version('Bg', '1.0')
from gi.repository import Bg, Gio, GLib, GObject  # noqa: E402

# Longer than anything takes: what hangs says where.
HANG_SECONDS = 240

# Of a domain that the library knows nothing of.
DOMAIN = 'test-python-error-quark'


def matches(error, domain, code):
    return error.matches(domain, code)


def test_start_and_shutdown():
    loop = Bg.Loop.new('a python loop')
    assert loop.get_name() == 'a python loop'
    assert loop.get_state() == Bg.LoopState.RUNNING
    assert loop.props.state == Bg.LoopState.RUNNING
    assert loop.props.name == 'a python loop'
    assert not loop.is_current()
    assert isinstance(loop.get_context(), GLib.MainContext)
    assert loop.shutdown()
    assert loop.get_state() == Bg.LoopState.STOPPED


def test_name_may_be_missing():
    loop = Bg.Loop.new(None)
    assert loop.get_name() == 'bgloop'
    assert loop.shutdown()


def test_post():
    loop = Bg.Loop.new('post')
    done = threading.Event()
    seen = []

    def work(text, number):
        seen.append((text, number, loop.is_current(), threading.get_ident()))
        done.set()

    assert loop.post(work, 'text', 42)
    assert done.wait(HANG_SECONDS)
    (text, number, is_current, thread), = seen
    assert (text, number) == ('text', 42)
    assert is_current
    assert thread != threading.get_ident()
    assert loop.shutdown()


def test_post_in_order():
    loop = Bg.Loop.new('order')
    seen = []
    for i in range(1000):
        assert loop.post(seen.append, i)
    assert loop.flush(-1)
    assert seen == list(range(1000))
    assert loop.post_full(GLib.PRIORITY_LOW, seen.append, 1000)
    assert loop.shutdown()
    assert seen == list(range(1001))


def test_post_is_refused():
    loop = Bg.Loop.new('refused')
    assert loop.shutdown()
    assert not loop.post(lambda: 1 / 0)


def test_destroy_frees_the_data():
    class Data:
        pass

    loop = Bg.Loop.new('destroy')
    gone = threading.Event()
    data = Data()
    finalizer = weakref.finalize(data, gone.set)
    assert loop.post(lambda value: None, data)
    del data
    assert loop.shutdown()
    gc.collect()
    assert not finalizer.alive


def test_call():
    loop = Bg.Loop.new('call')
    seen = []

    def work(value):
        seen.append((value, loop.is_current()))
        return True

    assert loop.call(work, 42)
    assert seen == [(42, True)]
    assert loop.call_full(GLib.PRIORITY_HIGH, 60_000, work, 43)
    assert seen[1] == (43, True)
    assert loop.shutdown()


def failing(_data):
    raise GLib.Error('no room for more', DOMAIN, 7)


def test_call_raises_unchanged():
    loop = Bg.Loop.new('raise')
    try:
        loop.call(failing, None)
    except GLib.Error as error:
        assert error.domain == DOMAIN, error.domain
        assert error.code == 7, error.code
        assert error.message == 'no room for more', error.message
    else:
        raise AssertionError('nothing was raised')
    assert loop.shutdown()


def test_call_is_closed():
    loop = Bg.Loop.new('closed')
    assert loop.shutdown()
    try:
        loop.call(lambda data: True, None)
    except GLib.Error as error:
        assert matches(error, Bg.error_quark(), Bg.Error.CLOSED), error
        assert 'closed' in error.message, error.message
    else:
        raise AssertionError('nothing was raised')


def test_call_is_cancelled():
    loop = Bg.Loop.new('cancelled')
    cancellable = Gio.Cancellable()
    cancellable.cancel()
    try:
        loop.call(lambda data: 1 / 0, None, cancellable)
    except GLib.Error as error:
        assert matches(error, Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED), error
    else:
        raise AssertionError('nothing was raised')
    assert loop.shutdown()


def test_own_thread_may_not_wait():
    loop = Bg.Loop.new('own')
    seen = []

    def work(_data):
        for wait in (loop.shutdown, lambda: loop.flush(-1)):
            try:
                wait()
            except GLib.Error as error:
                seen.append(matches(error, Bg.error_quark(), Bg.Error.WOULD_DEADLOCK))
        return True

    assert loop.call(work, None)
    assert seen == [True, True]
    assert loop.shutdown()


def call_async(loop, work):
    """What came of it, the threads of the work and of the reply."""
    main_loop = GLib.MainLoop()
    result = {}

    def run(*data):
        result['there'] = threading.get_ident()
        return work(*data)

    def replied(source, answer):
        result['here'] = threading.get_ident()
        try:
            result['value'] = source.call_finish(answer)
        except GLib.Error as error:
            result['error'] = error
        main_loop.quit()

    # Where there are two callbacks, PyGObject wants a tuple as the data of the first.
    loop.call_async(GLib.PRIORITY_DEFAULT, -1, run, (None,), None, replied)
    main_loop.run()
    return result


def test_call_async():
    loop = Bg.Loop.new('async')
    result = call_async(loop, lambda data: True)
    assert result['value'] is True
    assert result['here'] == threading.get_ident()
    assert result['there'] != threading.get_ident()
    assert loop.shutdown()


def test_call_async_raises_unchanged():
    loop = Bg.Loop.new('async')
    error = call_async(loop, failing)['error']
    assert (error.domain, error.code, error.message) == (DOMAIN, 7, 'no room for more')
    assert loop.shutdown()


def test_shutdown_async():
    loop = Bg.Loop.new('async')
    main_loop = GLib.MainLoop()
    result = []

    def replied(source, answer):
        result.append(source.shutdown_finish(answer))
        main_loop.quit()

    loop.shutdown_async(Bg.ShutdownMode.DRAIN, -1, None, replied)
    main_loop.run()
    assert result == [True]
    assert loop.get_state() == Bg.LoopState.STOPPED


def test_invoke():
    loop = Bg.Loop.new('invoke')
    runs = []
    done = threading.Event()

    def work():
        runs.append(loop.is_current())
        if len(runs) < 3:
            return GLib.SOURCE_CONTINUE
        done.set()
        return GLib.SOURCE_REMOVE

    assert loop.invoke(GLib.PRIORITY_DEFAULT, work)
    assert done.wait(HANG_SECONDS)
    assert loop.shutdown()
    assert runs == [True] * 3


def test_dropping_does_not_block():
    """The interpreter's lock is held when a reference goes: to join there would be the end."""
    for _ in range(200):
        loop = Bg.Loop.new('drop')
        done = threading.Event()
        assert loop.post(done.set)
        del loop
        gc.collect()
        assert done.wait(HANG_SECONDS)


def test_threads():
    loop = Bg.Loop.new('threads')
    counts = [0]

    def work(_data):
        counts[0] += 1
        return True

    def caller():
        for _ in range(200):
            assert loop.call(work, None)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loop.shutdown()
    assert counts == [1600]


def test_stats():
    loop = Bg.Loop.new('stats')
    assert loop.call(lambda data: True, None)
    assert loop.shutdown()
    stats = loop.get_stats()
    assert (stats.posted, stats.run, stats.refused, stats.cancelled) == (1, 1, 0, 0)
    assert 'stats' in loop.describe()


class Result(GObject.Object, Gio.AsyncResult):
    """An operation's own."""

    def __init__(self, value):
        super().__init__()
        self.value = value


def perform(loop, begin, timeout=-1, cancellable=None):
    """What an operation answers, for a caller that blocks."""
    return loop.perform(GLib.PRIORITY_DEFAULT, timeout, begin, None, cancellable)


def perform_async(loop, begin, timeout=-1, cancellable=None):
    """The same for a caller that does not."""
    main_loop = GLib.MainLoop()
    answers = []

    def replied(source, answer):
        assert threading.get_ident() == here
        answers.append(answer)
        main_loop.quit()

    here = threading.get_ident()
    loop.perform_async(GLib.PRIORITY_DEFAULT, timeout, begin, (None,), cancellable, replied)
    main_loop.run()
    return loop.perform_finish(*answers)


def raised_by(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except GLib.Error as error:
        return error
    raise AssertionError('nothing was raised')


def check_operation_answers(run):
    loop = Bg.Loop.new('answers')
    file = Gio.File.new_for_path(__file__)
    threads = set()

    def begin(operation, cancellable, data):
        def loaded(source, result):
            threads.add((threading.get_ident(), loop.is_current()))
            operation.answer(result)

        assert isinstance(operation, Bg.Operation)
        assert isinstance(cancellable, Gio.Cancellable)
        threads.add((threading.get_ident(), loop.is_current()))
        file.load_contents_async(cancellable, loaded)
        return True

    for _ in range(100):
        done, contents, _etag = file.load_contents_finish(run(loop, begin))
        assert done and b'The bgloop developers' in contents
    (thread, is_current), = threads
    assert is_current and thread != threading.get_ident()
    assert loop.shutdown()


def check_operation_answers_at_once(run):
    loop = Bg.Loop.new('at once')

    def begin(operation, cancellable, data):
        operation.answer(Result(42))
        return True

    assert run(loop, begin).value == 42
    assert loop.shutdown()


def check_operation_raises_unchanged(run):
    loop = Bg.Loop.new('raises')

    def begin(operation, cancellable, data):
        raise GLib.Error('no room for more', DOMAIN, 7)

    error = raised_by(run, loop, begin)
    assert (error.domain, error.code, error.message) == (DOMAIN, 7, 'no room for more')
    assert loop.shutdown()


def check_operation_raises_what_is_no_gerror(run):
    """PyGObject prints it; that the caller has an error and the loop an end is ours."""
    loop = Bg.Loop.new('raises')

    def begin(operation, cancellable, data):
        kept.append(operation)
        raise ValueError('this is part of the test')

    kept = []
    raised_by(run, loop, begin)
    assert loop.shutdown()


def check_operation_never_answered(run):
    loop = Bg.Loop.new('never')
    kept = []

    def begin(operation, cancellable, data):
        kept.append((operation, cancellable))
        return True

    error = raised_by(run, loop, begin, timeout=50)
    assert matches(error, Gio.io_error_quark(), Gio.IOErrorEnum.TIMED_OUT), error
    assert kept[0][1].is_cancelled()

    error = raised_by(loop.shutdown_full, Bg.ShutdownMode.CANCEL, 50)
    assert matches(error, Gio.io_error_quark(), Gio.IOErrorEnum.TIMED_OUT), error
    assert 'operation' in error.message, error.message
    kept.clear()
    gc.collect()
    assert loop.shutdown()


def check_operation_answers_too_late(run):
    loop = Bg.Loop.new('late')
    kept = []

    def begin(operation, cancellable, data):
        kept.append(operation)
        return True

    raised_by(run, loop, begin, timeout=50)
    kept[0].answer(Result(42))
    assert loop.shutdown()
    kept.clear()


def check_operation_answers_from_another_thread(run):
    loop = Bg.Loop.new('thread')
    threads = []

    def begin(operation, cancellable, data):
        threads.append(threading.Thread(target=operation.answer, args=(Result(42),)))
        threads[-1].start()
        return True

    for _ in range(100):
        assert run(loop, begin).value == 42
        threads.pop().join()
    assert loop.shutdown()


def check_operation_dropped(run):
    loop = Bg.Loop.new('dropped')

    def begin(operation, cancellable, data):
        return True

    error = raised_by(run, loop, begin)
    assert matches(error, Bg.error_quark(), Bg.Error.UNANSWERED), error
    assert loop.shutdown()


def check_operation_dropped_later(run):
    loop = Bg.Loop.new('dropped')

    def begin(operation, cancellable, data):
        kept = [operation]
        threading.Timer(0.01, kept.clear).start()
        return True

    error = raised_by(run, loop, begin)
    assert matches(error, Bg.error_quark(), Bg.Error.UNANSWERED), error
    assert loop.shutdown()


def check_operation_cancelled(run):
    loop = Bg.Loop.new('cancelled')
    cancellable = Gio.Cancellable()
    kept = []

    def begin(operation, followed, data):
        kept.append((operation, followed))
        cancellable.cancel()
        return True

    error = raised_by(run, loop, begin, cancellable=cancellable)
    assert matches(error, Gio.io_error_quark(), Gio.IOErrorEnum.CANCELLED), error
    assert kept[0][1].is_cancelled()
    kept.clear()
    assert loop.shutdown()


def check_operation_closed(run):
    loop = Bg.Loop.new('closed')
    assert loop.shutdown()
    error = raised_by(run, loop, lambda operation, cancellable, data: 1 / 0)
    assert matches(error, Bg.error_quark(), Bg.Error.CLOSED), error


def test_perform_on_its_own_thread():
    loop = Bg.Loop.new('own')
    errors = []

    def work(_data):
        errors.append(raised_by(perform, loop, lambda operation, cancellable, data: 1 / 0))
        return True

    assert loop.call(work, None)
    assert matches(errors[0], Bg.error_quark(), Bg.Error.WOULD_DEADLOCK), errors
    assert loop.shutdown()


def test_perform_gives_the_data():
    loop = Bg.Loop.new('data')

    def begin(operation, cancellable, data):
        operation.answer(Result(data))
        return True

    assert loop.perform(GLib.PRIORITY_DEFAULT, -1, begin, 'data').value == 'data'
    assert loop.shutdown()


def test_perform_async_frees_the_data():
    class Data:
        pass

    loop = Bg.Loop.new('data')
    data = Data()
    gone = weakref.ref(data)

    def begin(operation, cancellable, data):
        return True

    loop.perform_async(GLib.PRIORITY_DEFAULT, -1, begin, (data,), None, None)
    del data
    assert loop.shutdown()
    gc.collect()
    assert gone() is None


def operation_tests():
    """Each check, for a caller that blocks and for one that does not."""
    for name, check in list(globals().items()):
        if name.startswith('check_operation_'):
            for run in perform, perform_async:
                test = name.replace('check_operation', f'test_{run.__name__}')
                globals()[test] = functools.partial(check, run)


operation_tests()


def main():
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    tests = [(name, test) for name, test in globals().items() if name.startswith('test_')]
    print(f'1..{len(tests)}')
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        path = '/python/' + name[len('test_'):].replace('_', '-')
        try:
            test()
            print(f'ok {number} {path}', flush=True)
        except Exception:
            failed += 1
            print(f'not ok {number} {path}')
            for line in traceback.format_exc().splitlines():
                print('#', line, flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
