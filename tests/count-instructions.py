#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""count-instructions.py PROGRAM [MOST]: how many instructions a post takes, with the running of
what was posted; fails if that is more than MOST. Callgrind counts them: what a longer flood takes
more than a shorter one."""

import os
import re
import shutil
import subprocess
import sys

FEW, MANY = 20_000, 120_000
SKIPPED = 77


def count(program, posts):
    # Meson has malloc() write over what it gives and gets.
    environment = os.environ | {'MALLOC_PERTURB_': '0'}
    done = subprocess.run(
        ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', program, '--flood',
         str(posts)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True,
        env=environment)
    return int(re.search(r'Collected : (\d+)', done.stderr).group(1))


def main():
    if shutil.which('valgrind') is None:
        print('valgrind is not installed')
        return SKIPPED

    each = (count(sys.argv[1], MANY) - count(sys.argv[1], FEW)) / (MANY - FEW)
    if len(sys.argv) == 2:
        print(f'{each:.1f} instructions for each post; how many may be was not measured here')
        return 0

    most = float(sys.argv[2])
    print(f'{each:.1f} instructions for each post, at most {most:.0f} allowed')
    return 0 if each <= most else 1


if __name__ == '__main__':
    sys.exit(main())
