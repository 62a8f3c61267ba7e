# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Texts for people, in the language of the program: those of the library's own catalogs.

GLib translates them, as it does for the library, for a program that has called setlocale().
"""

import os

from _bgloop_config import LOCALEDIR

from . import native

DOMAIN = b'bgloop'

# In a child the library speaks English: another thread may have had a lock of gettext.
_parent = os.getpid()
_bound = False  # whether gettext has been told of the catalogs


def _may_translate():
    """As the library does it for itself: with the first text, not before."""
    global _bound

    if os.getpid() != _parent:
        return False
    if not _bound:
        # As long as nobody has: the library may have done so before, and the program since.
        if native.bindtextdomain(DOMAIN, None) == native.bindtextdomain(b'bgloop of nobody', None):
            native.bindtextdomain(DOMAIN, os.fsencode(LOCALEDIR))
        native.bind_textdomain_codeset(DOMAIN, b'UTF-8')
        _bound = True
    return True


def translate(text):
    return native.dgettext(DOMAIN, text.encode()).decode() if _may_translate() else text


def say(text, *values):
    """A text, translated and filled in."""
    return translate(text) % values


def say_number(one, many, n):
    """The same with a number, which decides the form."""
    if _may_translate():
        return native.dngettext(DOMAIN, one.encode(), many.encode(), n).decode() % n
    return (one if n == 1 else many) % n
