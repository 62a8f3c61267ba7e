#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that each language has every message, and that programs get them.

test-languages.py SOURCE-FOLDER CATALOGS PROGRAM
"""

import gettext
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HANG = 120
C_LOCALE = '/usr/lib/locale/C.utf8'
MARK = re.compile(r'\bN?_ ?\("|\bbg_translate_plural ?\("')
KEYWORDS = ['--keyword=_', '--keyword=N_', '--keyword=bg_translate_plural:1,2']
NOT_WITHOUT_HOLDS = 'The loop "%s" has not stopped within %d ms: %s'
CLOSED = 'The loop "%s" takes no more work'
MORE = ('and %u more hold or operation', 'and %u more holds and operations')


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, encoding='utf-8', timeout=HANG, **options)


class Languages:
    def __init__(self, source, catalogs, program):
        self.source = pathlib.Path(source)
        self.catalogs = catalogs
        self.program = program
        self.marked = sorted(str(path.relative_to(source)) for path in self.source.glob('bgloop/**/*.c')
                             if MARK.search(path.read_text(encoding='utf-8')))

    def check_list(self):
        lines = (self.source / 'po/POTFILES.in').read_text(encoding='utf-8').splitlines()
        listed = sorted(line for line in lines if line and not line.startswith('#'))
        return None if listed == self.marked else f'po/POTFILES.in has {listed}, marked are {self.marked}.'

    def check_catalog(self, language):
        catalog = self.source / 'po' / f'{language}.po'
        with tempfile.TemporaryDirectory() as folder:
            template = os.path.join(folder, 'bgloop.pot')
            commands = [
                ['msgfmt', '--check', '--output-file', os.devnull, str(catalog)],
                ['xgettext', '--from-code=UTF-8', '--output', template, *KEYWORDS, *self.marked],
                ['msgcmp', str(catalog), template],
            ]
            for command in commands:
                result = run(*command, cwd=self.source)
                if result.returncode != 0:
                    return result.stderr
        return None

    def say(self, language, *arguments):
        # glibc 2.39 and later translate nothing in a locale that is called C.UTF-8.
        with tempfile.TemporaryDirectory() as folder:
            os.symlink(C_LOCALE, os.path.join(folder, 'xx_XX.utf8'))
            env = dict(os.environ, LOCPATH=folder, LC_ALL='xx_XX.UTF-8', LANGUAGE=language)
            return run(self.program, self.catalogs, *arguments, env=env)

    def check_said(self, language):
        """What a program says that has called setlocale()."""
        said = self.say(language, 'setlocale')
        if said.returncode != 0:
            return said.stderr
        catalog = gettext.translation('bgloop', self.catalogs, [language])
        report, closed = said.stdout.splitlines()
        if closed != catalog.gettext(CLOSED) % 'x':
            return said.stdout
        if not report.startswith(catalog.gettext(NOT_WITHOUT_HOLDS) % ('x', 0, '')):
            return said.stdout
        if catalog.ngettext(*MORE, 2) % 2 not in report:
            return said.stdout
        return None

    def check_silent(self, language):
        """What one says that has not."""
        said = self.say(language)
        if said.returncode != 0 or '?' in said.stdout or not said.stdout.isascii():
            return said.stdout + said.stderr
        return None if said.stdout.splitlines()[1] == CLOSED % 'x' else said.stdout


def main(source, catalogs, program):
    languages = Languages(source, catalogs, program)
    names = (languages.source / 'po/LINGUAS').read_text(encoding='utf-8').split()
    if not languages.marked or shutil.which('msgcmp') is None or not os.path.isdir(C_LOCALE):
        print('1..0 # SKIP no message is marked, or there are no tools of gettext, or no locale')
        return 0

    checks = [('POTFILES.in', languages.check_list)]
    for name in names:
        checks.append((f'{name} complete', lambda name=name: languages.check_catalog(name)))
        checks.append((f'{name} with setlocale', lambda name=name: languages.check_said(name)))
        checks.append((f'{name} without', lambda name=name: languages.check_silent(name)))

    print(f'1..{len(checks)}')
    failed = 0
    for number, (name, check) in enumerate(checks, 1):
        wrong = check()
        failed += wrong is not None
        print(f'{"ok" if wrong is None else "not ok"} {number} - {name}')
        for line in (wrong or '').splitlines():
            print('#', line)
    return 1 if failed else 0


sys.exit(main(*sys.argv[1:]))
