#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""python-dir.py PREFIX: where below a prefix this Python looks for packages, or would if it looked there."""

import pathlib
import site
import sys

prefix = pathlib.Path(sys.argv[1])
for path in [*sys.path, *site.getsitepackages()]:
    path = pathlib.Path(path)
    if path.name in ('site-packages', 'dist-packages') and path.is_relative_to(prefix) \
            and path.relative_to(prefix).parts[0].startswith('lib'):
        print(path)
        break
else:
    print(prefix / 'lib' / f'python{sys.version_info[0]}.{sys.version_info[1]}' / 'site-packages')
