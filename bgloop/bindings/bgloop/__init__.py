# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A background main loop for GLib that ends well: gi.repository.Bg under its own name."""

import gi

gi.require_version('Bg', '1.0')
from gi.repository import Bg  # noqa: E402

try:
    from gi.repository.Bg import ClosedError, ForkedError, Future, Handle, Hold, Loop, WouldDeadlockError
except ImportError:
    raise ImportError('the override of gi.repository.Bg is not where PyGObject looks: '
                      'gi/overrides/Bg.py, beside this package') from None

Error = Bg.Error
LoopState = Bg.LoopState
LoopStats = Bg.LoopStats
Operation = Bg.Operation
ShutdownMode = Bg.ShutdownMode

__all__ = ['Bg', 'ClosedError', 'Error', 'ForkedError', 'Future', 'Handle', 'Hold', 'Loop', 'LoopState',
           'LoopStats', 'Operation', 'ShutdownMode', 'WouldDeadlockError']
