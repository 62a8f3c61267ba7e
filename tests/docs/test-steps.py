#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Do what a page says, line by line, in an empty folder.

test-steps.py FOLDER PAGE: the folder is copied first ("" is an empty one). Blocks that are marked with
"<!-- FILE -->" are written to a file of that name (if it is one of the source tree, of its last part), or
added to it; blocks of sh are run by one shell in their order, which ends with the first line that
fails, and so is what a line "<!-- sh: … -->" says. HOME is an empty folder.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

BLOCK = re.compile(r'^<!-- sh: (?P<command>[^\n]*) -->$|'
                   r'(?:^<!-- (?P<mark>\S*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$',
                   re.DOTALL | re.MULTILINE)
NOT_COPIED = shutil.ignore_patterns('.git', '.?*', 'build*', '_build*', '__pycache__')
HANG = 600


def write_script(page):
    script, files = ['set -eu'], set()
    for match in BLOCK.finditer(page.read_text(encoding='utf-8')):
        name = match['mark']
        if match['command']:
            script.append(match['command'])
        elif match['language'] == 'sh':
            script.append(match['code'].rstrip())
        elif name:
            if name.startswith('../'):
                name = os.path.basename(name)
            script += [f"cat {'>>' if name in files else '>'}{name} <<'END OF BLOCK'", match['code'] + 'END OF BLOCK']
            files.add(name)
    return '\n'.join(script) + '\n'


def main(source, page):
    script = write_script(pathlib.Path(page))
    with tempfile.TemporaryDirectory() as root:
        folder, home = os.path.join(root, 'folder'), os.path.join(root, 'home')
        os.mkdir(home)
        if source:
            shutil.copytree(source, folder, symlinks=True, ignore=NOT_COPIED)
        else:
            os.mkdir(folder)
        for variable in ('DESTDIR', 'CC', 'CFLAGS', 'LDFLAGS'):
            os.environ.pop(variable, None)
        os.environ['HOME'] = home
        return subprocess.run(['sh', '-x', '-c', script], cwd=folder, timeout=HANG).returncode


sys.exit(main(*sys.argv[1:]))
