# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gio's asynchronous operations on a loop."""

from _thread import get_ident

import gi
from gi.repository import Gio

from . import native
from . import thread as threads
from . import waiting
from .errors import ClosedError, cancelled, unanswered
from .text import say
from .work import without_own_frame

PRIORITY = 0


def _finish_name(name):
    return (name[:-len('_async')] if name.endswith('_async') else name) + '_finish'


def find_finish(method):
    """What turns the answer's source and result into the operation's own result.

    A method of the library's own says what its class has, but not which object it is of: that is the
    source that comes with the answer. One that Python has made says that.
    """
    name = getattr(method, '__name__', None)
    if name is None:
        raise TypeError(f'{method!r} is no operation: it has no name')

    finish_name = _finish_name(name)
    container = method.get_container() if hasattr(method, 'get_container') else None
    if container is not None and finish_name in (each.get_name() for each in container.get_methods()):
        return lambda source, result: _get_finish(source, container, finish_name)(result)

    finish = getattr(getattr(method, '__self__', None), finish_name, None)
    if finish is not None:
        return lambda source, result: finish(result)
    raise TypeError(f'there is no {finish_name}() beside {name}(): finish= says what to take instead')


def _get_finish(source, container, name):
    finish = getattr(source, name, None)
    if finish is None:  # a constructor has no source
        namespace = gi.module.get_introspection_module(container.get_namespace())
        finish = getattr(getattr(namespace, container.get_name()), name)
    return finish


class _Answer:
    """The operation's callback. The last reference to it gone is an answer, too."""

    __slots__ = ('tokens', 'operation')

    def __init__(self, operation):
        self.operation = operation
        self.tokens = [True]  # whoever takes it, answers

    def __call__(self, source, result, *user_data):
        if self.take():
            self.operation.answer(source, result)

    def __del__(self):
        if self.take():
            self.operation.answer(None, None)

    def take(self):
        try:
            return self.tokens.pop()
        except IndexError:
            return False


class Operation:
    """An operation that is to begin, or has begun."""

    __slots__ = ('loop', 'thread', 'key', 'method', 'args', 'kwargs', 'finish', 'name', 'future', 'context',
                 'cancellable', 'number')

    KIND = threads.OPERATION

    def __init__(self, loop, thread, method, args, kwargs, finish, future, context):
        if finish is None:
            finish = find_finish(method)
        else:
            function = finish
            finish = lambda source, result: function(result)  # noqa: E731

        self.loop = loop
        self.thread = thread
        self.method = method
        self.args = args
        self.kwargs = kwargs
        self.finish = finish
        self.name = getattr(method, '__name__', None) or repr(method)
        self.future = future
        self.context = context
        self.cancellable = Gio.Cancellable()
        self.key = None
        self.number = 0

    def describe(self):
        return self.name

    def submit(self, cancellable):
        """False if it was refused."""
        thread, future = self.thread, self.future
        thread.heed()
        self.key = future._key = key = next(thread.keys)
        thread.live[key] = thread.pending[key] = self
        if thread.refuses or not native.post_full(thread.pointer, PRIORITY, threads._run_cb, key, None):
            thread.live.pop(key, None)
            thread.pending.pop(key, None)
            return False

        if cancellable is not None:
            self.follow(cancellable, future)
        return True

    def follow(self, cancellable, future):
        """Has it cancelled with the caller's cancellable, as long as somebody waits for it. Perhaps it is over."""
        follower = waiting._OnCancelled(cancellable, lambda: self.give_up(self.cancelled_error()))
        future.add_done_callback(lambda _: follower.__exit__())
        follower.__enter__()

    def cancelled_error(self):
        return cancelled(say('%s() on the loop "%s" was cancelled', self.name, self.thread.name))

    def run(self):
        """Begins it, on the loop's thread."""
        if self.key not in self.thread.live:
            self.forget()
            return

        try:
            self.number = self.thread.hold(self.name)
        except ClosedError:
            # A shutdown in CANCEL mode is about to drop it.
            if self.thread.live.pop(self.key, None) is not None:
                self.future._end_as_closed()
            self.forget()
            return

        answer = _Answer(self)
        try:
            self.begin(answer)
        except BaseException as error:
            if answer.take():
                self.complete(None, without_own_frame(error))
            else:
                threads.report(error)  # it has answered all the same
        finally:
            answer = None

    def begin(self, answer):
        """Its completion comes to the context that is the thread's default one."""
        context = self.thread.context
        pushes = native.get_thread_default() != context
        if pushes:
            native.push_thread_default(context)
        try:
            self.context.run(self.method, *self.args, self.cancellable, answer, **self.kwargs)
        finally:
            if pushes:
                native.pop_thread_default(context)
            self.method = self.args = self.kwargs = None

    def answer(self, source, result):
        if self.key not in self.thread.live:
            self.complete(None, None)  # late: perhaps the loop is no more
        elif get_ident() == self.thread.ident:
            self.conclude(source, result)
        else:
            self.thread.send(lambda: self.conclude(source, result))

    def conclude(self, source, result):
        """On the loop's thread. What nobody wants is not asked for."""
        error = box = None
        if self.key in self.thread.live:
            try:
                if result is None:
                    raise unanswered(self.thread, self.name)
                box = [self.context.copy().run(self.finish, source, result)]  # it may answer while it begins
            except BaseException as caught:
                error = without_own_frame(caught)
        self.complete(box, error)
        error = None

    def complete(self, box, error):
        thread, future, number = self.thread, self.future, self.number
        loop = self.loop  # which must be there to be released
        wanted = thread.live.pop(self.key, None) is not None
        self.forget()
        if wanted and error is not None:
            future.set_exception(error)
        elif wanted:
            future.set_result(box.pop())
        error = None
        thread.release(number)
        del loop

    def forget(self):
        self.method = self.args = self.kwargs = self.finish = self.context = None
        self.future = self.loop = None

    def stop(self, key):
        """Nobody waits for it any more, whoever has taken it out of what is live."""
        if self.thread.pending.pop(key, None) is not None:
            self.forget()
        self.cancellable.cancel()

    def give_up(self, error):
        future = self.future
        if self.thread.live.pop(self.key, None) is not None:
            future.set_exception(error)
            self.stop(self.key)
