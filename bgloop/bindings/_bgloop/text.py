# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts for people, in the language of the program: those of the library's own catalogs.

GLib translates them, as it does for the library, for a program that has called setlocale().
"""

import os

from gi.repository import GLib

DOMAIN = 'bgloop'

# In a child the library speaks English: another thread may have had a lock of gettext.
_parent = os.getpid()
_found = False  # whether gettext has been told where the catalogs are


def translate(text):
    return GLib.dgettext(DOMAIN, text) if os.getpid() == _parent else text


def _find_catalogs(thread):
    """The library tells gettext of them with the first text of its own."""
    global _found

    if _found or thread is None or os.getpid() != _parent:
        return
    loop = thread.reference()
    if loop is not None:
        loop.describe()
        _found = True


def say(thread, text, *values):
    """A text, of a loop's thread if it is about a loop, translated and filled in."""
    _find_catalogs(thread)
    return translate(text) % values


def say_number(thread, one, many, n):
    """The same with a number, which decides the form."""
    _find_catalogs(thread)
    if os.getpid() == _parent:
        return GLib.dngettext(DOMAIN, one, many, n) % n
    return (one if n == 1 else many) % n
