#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make the reference with gi-docgen, and give all of its pages our style besides gi-docgen's own.

make-reference.py STYLE OUTPUT GI-DOCGEN ARGUMENT...
"""

import pathlib
import subprocess
import sys


def main(style, output, *gi_docgen):
    status = subprocess.run([*gi_docgen, '--output-dir', output]).returncode
    if status == 0:
        # gi-docgen has written this file anew; each page links to it.
        theme = pathlib.Path(output, 'style.css')
        theme.write_text('\n'.join(path.read_text(encoding='utf-8') for path in (theme, pathlib.Path(style))),
                         encoding='utf-8')
    return status


sys.exit(main(*sys.argv[1:]))
