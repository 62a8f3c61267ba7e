# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The catalogs of a domain: whether they are complete, and a program that speaks their languages."""

import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

HANG = 120
C_LOCALE = '/usr/lib/locale/C.utf8'
MARK = re.compile(r'\bN?_ ?\("|\bngettext ?\("|\bbg_translate_plural ?\("|'
                  r'(?<!def )\b(?:say|say_number|timeout_error)\(')
KEYWORDS = ['--keyword=_', '--keyword=N_', '--keyword=bg_translate_plural:1,2', '--keyword=say:1',
            '--keyword=say_number:1,2', '--keyword=timeout_error:3', '--keyword=check_cancellable:3']


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, encoding='utf-8', timeout=HANG, **options)


def missing():
    """Returns what keeps the tests from running, or None."""
    if shutil.which('msgcmp') is None:
        return 'there are no tools of gettext'
    return None if os.path.isdir(C_LOCALE) else f'there is no {C_LOCALE}'


def run_in(language, *command, **options):
    # glibc 2.39 and later translate nothing in a locale that is called C.UTF-8.
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(C_LOCALE, os.path.join(folder, 'xx_XX.utf8'))
        env = dict(os.environ, LOCPATH=folder, LC_ALL='xx_XX.UTF-8', LANGUAGE=language)
        return run(*command, env=env, **options)


class Catalogs:
    """po is the folder of the catalogs, and sources are patterns of the files that are translated by them."""

    def __init__(self, source, po, *sources):
        self.source = pathlib.Path(source)
        self.po = self.source / po
        self.languages = (self.po / 'LINGUAS').read_text(encoding='utf-8').split()
        self.marked = sorted(str(path.relative_to(source)) for path in itertools.chain(*map(self.source.glob, sources))
                             if MARK.search(path.read_text(encoding='utf-8')))

    def check_list(self):
        lines = (self.po / 'POTFILES.in').read_text(encoding='utf-8').splitlines()
        listed = sorted(line for line in lines if line and not line.startswith('#'))
        if not self.marked:
            return 'No message is marked.'
        return None if listed == self.marked else f'{self.po}/POTFILES.in has {listed}, marked are {self.marked}.'

    def check_complete(self, language):
        catalog = self.po / f'{language}.po'
        with tempfile.TemporaryDirectory() as folder:
            template = os.path.join(folder, 'template.pot')
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


def run_checks(checks):
    """checks: (name, function that returns what is wrong, or None). Returns: the exit status"""
    print(f'1..{len(checks)}')
    failed = 0
    for number, (name, check) in enumerate(checks, 1):
        wrong = check()
        failed += wrong is not None
        print(f'{"ok" if wrong is None else "not ok"} {number} - {name}')
        for line in (wrong or '').splitlines():
            print('#', line)
    return 1 if failed else 0
