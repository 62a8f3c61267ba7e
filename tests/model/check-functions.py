#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""check-functions.py MODEL HEADER...: the tester draws each function of these public headers.

A function that is new is to get a place in a kind of operation, in model-ops.c.
"""

import re
import subprocess
import sys

# What a scenario cannot say anything about.
NOT_DRAWN = re.compile(r'bg_\w+_get_type|bg_loop_new|bg_error_quark')


def main():
    program, headers = sys.argv[1], sys.argv[2:]
    declared = set()
    for header in headers:
        with open(header, encoding='utf-8') as file:
            declared |= set(re.findall(r'^(?:BG_API\n)?[\w *]*?\b(bg_\w+) *\(', file.read(), re.MULTILINE))
    listed = subprocess.run([program, '--list'], check=True, capture_output=True, text=True).stdout
    drawn = set(re.findall(r'\bbg_\w+', listed))

    missing = sorted(name for name in declared - drawn if not NOT_DRAWN.fullmatch(name))
    unknown = sorted(drawn - declared)
    print('TAP version 13\n1..2')
    print('not ok' if missing else 'ok', '1 each function is drawn')
    print('not ok' if unknown or not declared else 'ok', '2 each that is drawn is public')
    for name in missing:
        print(f'# {name} is not drawn')
    for name in unknown:
        print(f'# {name} is in no public header')
    return 1 if missing or unknown or not declared else 0


sys.exit(main())
