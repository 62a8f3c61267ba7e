# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is raised, and how C's errors become it."""

import ctypes

from gi.repository import Gio, GLib

from . import native
from .text import say

DOMAIN = 'bg-error-quark'
CLOSED, WOULD_DEADLOCK, FORKED, UNANSWERED = range(4)


class _LoopError(GLib.Error):
    """A GLib.Error of the library's domain."""

    def __init__(self, message=''):
        super().__init__(message, DOMAIN, self.CODE)

    def __reduce__(self):
        return type(self), (self.message,)

    def __repr__(self):
        return f'{type(self).__name__}({self.message!r})'


class ClosedError(_LoopError):
    """The loop takes no more work, or dropped this piece of work at its shutdown."""

    CODE = CLOSED


class WouldDeadlockError(_LoopError):
    """This wait could never end, so it was not begun, or has come to that and was given up."""

    CODE = WOULD_DEADLOCK


class ForkedError(_LoopError):
    """The loop belongs to the process that this one was forked from."""

    CODE = FORKED


_CLASSES = {kind.CODE: kind for kind in (ClosedError, WouldDeadlockError, ForkedError)}


def cancelled(message):
    return GLib.Error(message, 'g-io-error-quark', int(Gio.IOErrorEnum.CANCELLED))


def unanswered(thread, name):
    return GLib.Error(say('%s() on the loop "%s" cannot be answered any more, or was answered without a result',
                          name, thread.name), DOMAIN, UNANSWERED)


def would_deadlock(thread):
    return WouldDeadlockError(say('This wait could never end: "%s" would wait for itself', thread.name))


def take(error):
    """The exception for a GError, which is freed: a TimeoutError, or what is above, or a GLib.Error."""
    domain = native.quark_to_string(error.contents.domain).decode()
    code = error.contents.code
    message = (error.contents.message or b'').decode(errors='replace')
    native.error_free(error)

    if domain == DOMAIN and code in _CLASSES:
        return _CLASSES[code](message)
    if domain == 'g-io-error-quark' and code == int(Gio.IOErrorEnum.TIMED_OUT):
        return TimeoutError(message)
    return GLib.Error(message, domain, code)


def check(function, *arguments):
    """The result of a C function that takes a GError last, which is raised."""
    error = native.GErrorPointer()
    result = function(*arguments, ctypes.byref(error))
    if error:
        raise take(error)
    return result
