# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A background main loop for GLib that ends well: gi.repository.Bg under its own name.

The library is loaded when it is first asked for something: pytest imports this for its plugin, whatever it
is to test.
"""

# Not import gi: without PyGObject the folder of the override passes for a package of that name.
try:
    from gi import require_version

    require_version('Bg', '1.0')
except (ImportError, ValueError):
    pass  # whoever asks for something is told

__all__ = ['Bg', 'ClosedError', 'Error', 'ForkedError', 'Future', 'Handle', 'Hold', 'Loop', 'LoopState',
           'LoopStats', 'Operation', 'ShutdownMode', 'WouldDeadlockError']


def _load():
    from gi import require_version

    require_version('Bg', '1.0')
    from gi.repository import Bg

    if not hasattr(Bg, 'ClosedError'):
        raise ImportError('the override of gi.repository.Bg is not where PyGObject looks: '
                          'gi/overrides/Bg.py, beside this package')
    globals().update({name: getattr(Bg, name) for name in __all__ if name != 'Bg'}, Bg=Bg)


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    _load()
    return globals()[name]


def __dir__():
    return sorted(set(globals()) | set(__all__))
