#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""symbols.py LIBRARY ARCHIVE: that the random test calls each function that the library exports.
symbols.py LIBRARY PROGRAM FOLDER: that a test program has a test of each, named FOLDER/FUNCTION.

What the random test leaves out on purpose is listed here with the reason; a new function is not."""

import re
import subprocess
import sys

LEFT_OUT = {
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
    dynamic = [] if path.endswith('.a') else ['-D']
    text = subprocess.run(['nm', *dynamic, *options, path], check=True, capture_output=True, text=True)
    names = (line.split()[-1] for line in text.stdout.splitlines() if line)
    return {name.split('@')[0] for name in names if name.startswith('bg_')}


def tests(program, folder):
    """The names of the program's tests in a folder."""
    text = subprocess.run([program, '-l'], check=True, capture_output=True, text=True).stdout
    # Newer GLibs list them in comments of TAP.
    return set(re.findall(rf'^(?:# )?{re.escape(folder)}(\S+)$', text, re.M))


def main():
    library, program, *folder = sys.argv[1:]
    exported = symbols(library, '--defined-only')
    if folder:
        found, left_out = tests(program, folder[0] + '/'), set()
        stale = sorted(found - exported)
    else:
        found, left_out = symbols(program, '--undefined-only'), LEFT_OUT.keys()
        stale = sorted((left_out & found) | (left_out - exported))
    missing = sorted(exported - found - left_out)

    print('1..3')
    print('ok 1 the library exports something' if exported else 'not ok 1 nothing is exported')
    print(f'{"not " if missing else ""}ok 2 each function is called')
    for name in missing:
        print(f'# nobody calls {name}()')
    print(f'{"not " if stale else ""}ok 3 nothing is listed that is not there')
    for name in stale:
        print(f'# {name}() is left out, or tested, and should not be')
    return 1 if missing or stale or not exported else 0


sys.exit(main())
