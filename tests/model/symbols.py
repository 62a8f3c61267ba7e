#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""symbols.py LIBRARY MODEL: that the random test calls each function that the library exports.

What is left out on purpose is listed here with the reason; a new function is not."""

import subprocess
import sys

LEFT_OUT = {
    'bg_test_fixture_set_up': 'asks GTest for the path of the test that runs',
    'bg_test_fixture_tear_down': 'the same',
    'bg_test_fixture_ignore_eventfd': 'needs a fixture',
    'bg_loop_state_get_type': 'a type, for bindings',
    'bg_shutdown_mode_get_type': 'a type, for bindings',
    'bg_error_get_type': 'a type, for bindings',
    'bg_loop_stats_get_type': 'a type, for bindings',
    'bg_operation_get_type': 'a type, for bindings',
    'bg_get_major_version': 'a number',
    'bg_get_minor_version': 'a number',
    'bg_get_micro_version': 'a number',
    'bg_check_version': 'compares numbers',
}


def symbols(path, *options):
    """The library's symbols that nm lists with these options."""
    text = subprocess.run(['nm', '-D', *options, path], check=True, capture_output=True, text=True)
    names = (line.split()[-1] for line in text.stdout.splitlines())
    return {name.split('@')[0] for name in names if name.startswith('bg_')}


def main():
    library, model = sys.argv[1:]
    exported = symbols(library, '--defined-only')
    drawn = symbols(model, '--undefined-only')
    missing = sorted(exported - drawn - LEFT_OUT.keys())
    stale = sorted((LEFT_OUT.keys() & drawn) | (LEFT_OUT.keys() - exported))

    print('1..3')
    print('ok 1 the library exports something' if exported else 'not ok 1 nothing is exported')
    print(f'{"not " if missing else ""}ok 2 all is drawn')
    for name in missing:
        print(f'# no scenario draws {name}()')
    print(f'{"not " if stale else ""}ok 3 nothing is left out that is drawn, or gone')
    for name in stale:
        print(f'# {name}() is not left out')
    return 1 if missing or stale or not exported else 0


sys.exit(main())
