#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run what the pages show in languages that go through the GIR.

test-pages.py VAPI-FOLDER [LANGUAGE=PROGRAM...] -- PAGE...

Each block is a whole program. If a block of text that comes after it is marked with a line
"<!-- output -->" it prints just that. A block whose language has no PROGRAM is skipped.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import tap

HANG = 120
BLOCK = re.compile(r'(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$',
                   re.DOTALL | re.MULTILINE)
LANGUAGES = ('js', 'lua', 'vala')


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, **options)


def check(program, vapi, language, code, output):
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, f'page.{language}')
        with open(source, 'w', encoding='utf-8') as file:
            file.write(code)
        command = [program, source]
        if language == 'vala':
            command = [os.path.join(folder, 'page')]
            built = run(program, '--vapidir', vapi, '--pkg', 'bgloop-1', '--pkg', 'gio-2.0', '-X', '-w', source,
                        '-o', command[0])
            if built.returncode != 0 or 'warning' in built.stderr:
                return built.stdout + built.stderr

        result = run(*command, cwd=folder)
    if result.returncode != 0 or result.stderr:
        return f'exit status {result.returncode}\n{result.stderr}'
    return None if result.stdout == output else f'It printed {result.stdout!r} instead of {output!r}.'


def main(arguments):
    split = arguments.index('--')
    vapi, *programs = arguments[:split]
    programs = dict(program.split('=', 1) for program in programs)

    checks = []
    for page in map(pathlib.Path, arguments[split + 1:]):
        blocks = list(BLOCK.finditer(page.read_text(encoding='utf-8')))
        for block, after in zip(blocks, blocks[1:] + [None]):
            language = block['language']
            if language not in LANGUAGES:
                continue

            output = after['code'] if after and after['mark'] == 'output' else ''
            name = f'{page.name}: {block["code"].split()[0]}'
            if language not in programs:
                name += f' # SKIP nothing runs {language}'
                checks.append((name, lambda: None))
                continue
            checks.append((name, lambda program=programs[language], language=language, code=block['code'],
                           output=output: check(program, vapi, language, code, output)))
    return tap.run(checks)


sys.exit(main(sys.argv[1:]))
