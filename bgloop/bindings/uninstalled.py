#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""uninstalled.py DIR NAME=TARGET...: links as they would be installed, for Python to find them in DIR."""

import os
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
for argument in sys.argv[2:]:
    name, target = argument.split('=', 1)
    link = root / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    os.symlink(target, link)
