#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that the code in a guide is that of the examples.

check-guide.py GUIDE...: a block of code that follows a line "<!-- FILE -->" must be found in that
file as it stands; a block of C, C++ or Python without such a line is an error.
"""

import pathlib
import re
import sys

BLOCK = re.compile(r'(?:<!-- (?P<file>\S+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```\n', re.DOTALL)
CODE = {'c', 'cpp', 'python'}


def check(guide):
    bad = n = 0
    for match in BLOCK.finditer(guide.read_text(encoding='utf-8')):
        if match['language'] not in CODE:
            continue
        n += 1
        first = match['code'].splitlines()[0]
        if not match['file']:
            print(f'{guide.name}: from no file: {first}')
            bad += 1
        elif '\n' + match['code'] not in (guide.parent / match['file']).read_text(encoding='utf-8'):
            print(f'{guide.name}: not in {match["file"]}: {first}')
            bad += 1
    print(f'{guide.name}: {n} blocks, {bad} wrong')
    return n > 0 and bad == 0


sys.exit(not all([check(pathlib.Path(argument)) for argument in sys.argv[1:]]))
