#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that the search example speaks each language, and English in the locale C.

test-search.py SOURCE-FOLDER CATALOGS PROGRAM
"""

import gettext
import os
import pathlib
import re
import sys
import tempfile

import catalogs

DOMAIN = 'bgloop-search'
N_HIDDEN = 7
N_NAMED = 5

HELP = [
    'index DIR | query WORDS...',
    'A full-text index of a folder.',
    'A query finds the files that hold all the words. Several words in one argument follow each other.\n'
    'Write "--" before words that start with a dash.',
    'The index (default: ~/.cache/bgloop-search/index.db)',
    'query: how many files to show at most (default: 10)',
    'index: hidden files, too',
    'index: print each file when it is on disk or skipped; query: how well each fits',
    'Print the version',
]


class Wrong(Exception):
    pass


class Speaker:
    """The program in one language, in a folder with a tree of files."""

    def __init__(self, program, built, language, folder):
        self.program = os.path.abspath(program)
        self.language = language
        self.folder = pathlib.Path(folder)
        self.catalog = gettext.NullTranslations()
        if language != 'C':
            self.catalog = gettext.translation(DOMAIN, built, [language])

    def check_translated(self, english, text):
        if self.language != 'C' and text == english and re.search('[a-z]{3}', english):
            raise Wrong(f'"{english}" is not translated')
        return text

    def tr(self, text):
        return self.check_translated(text, self.catalog.gettext(text))

    def plural(self, singular, plural, n, *arguments):
        """Arguments in the order of the English text, whatever the order of the translation is."""
        text = self.check_translated(plural, self.catalog.ngettext(singular, plural, n))
        return self.fill(text, *(arguments or (n,)))

    @staticmethod
    def fill(text, *arguments):
        rest = iter(arguments)
        return re.sub(r'%(?:(\d)\$)?(?:\.\d)?[usf]',
                      lambda place: str(arguments[int(place[1]) - 1] if place[1] else next(rest)), text)

    def run(self, *arguments, database='index.db', before=()):
        command = [*before, self.program, '--database', database, *arguments]
        if self.language == 'C':
            env = dict(os.environ, LC_ALL='C', LANGUAGE='de')
            return catalogs.run(*command, cwd=self.folder, env=env)
        return catalogs.run_in(self.language, *command, cwd=self.folder)

    def in_charset(self, text):
        """What GLib prints in the charset of the locale. GLib 2.90 prints UTF-8 in C as well: what it has printed is
        compared as it would be here."""
        return text.encode('ascii', 'replace').decode() if self.language == 'C' else text

    def without_progress(self, text):
        """What takes its time says how far it is, in lines of their own."""
        files = self.catalog.ngettext('%u of %u files', '%u of %u files', N_HIDDEN)
        progress = re.escape(self.in_charset(self.fill(files, '#', '#'))).replace(r'\#', r'\d+')
        return re.sub(rf'^{progress}, .*\n', '', text, flags=re.M)

    def expect(self, said, status, err):
        if said.returncode != status or self.without_progress(self.in_charset(said.stderr)) != self.in_charset(err):
            raise Wrong(f'Status {said.returncode} for {status}, "{said.stderr}" for "{err}"')

    def expect_error(self, message, *arguments, **options):
        self.expect(self.run(*arguments, **options), 2, f'search: {message}\n')

    def expect_lines(self, said, lines, end):
        """end: the last line, with \\0 where the seconds are"""
        self.expect(said, 0, '')
        *others, last = said.stdout.splitlines()
        pattern = r'\d+[.,]\d'.join(re.escape(part) for part in end.split('\0'))
        if sorted(others) != sorted(lines) or not re.fullmatch(pattern, last):
            raise Wrong(f'"{said.stdout}" for {lines}, "{end}"')

    def indexed(self, n):
        return self.plural('Indexed %u file in %.1f seconds', 'Indexed %u files in %.1f seconds', n, n, '\0')

    def skipped(self):
        """The lines of the reasons."""
        n = N_HIDDEN + 1
        return [
            self.plural('Skipped %u:', 'Skipped %u:', n),
            '  ' + self.fill(self.tr('%s: %u'), self.tr('binary'), 1),
            '  ' + self.fill(self.tr('%s: %u'), self.tr('hidden'), N_HIDDEN),
        ]

    def write_tree(self):
        tree = self.folder / 'tree'
        tree.mkdir()
        (tree / 'one').write_text('needle\n')
        (tree / 'two').write_text('needle\n')
        (tree / 'binary').write_bytes(b'needle\0')
        for i in range(N_HIDDEN):
            (tree / f'.hidden{i}').write_text('needle\n')

    def check_help(self):
        said = self.run('--help')
        self.expect(said, 0, '')
        for text in HELP:
            if self.in_charset(self.tr(text)) not in self.in_charset(said.stdout):
                raise Wrong(f'"{self.tr(text)}" is not in "{said.stdout}"')

    def check_index_verbose(self):
        names = ['binary'] + [f'.hidden{i}' for i in range(N_HIDDEN)]
        reasons = [self.tr('binary')] + [self.tr('hidden')] * N_HIDDEN
        lines = [f'{self.tr("skipped")} tree/{name}{self.fill(self.tr(": %s"), reason)}'
                 for name, reason in zip(names, reasons)]
        lines += [f'{self.tr("indexed")} tree/{name}' for name in ('one', 'two')]
        lines += [f'{self.tr("indexing")} tree', *self.skipped()]
        self.expect_lines(self.run('index', '--verbose', 'tree'), lines, self.indexed(2) + self.tr('.'))

    def check_index_again(self):
        (self.folder / 'tree/two').unlink()
        n = N_HIDDEN - N_NAMED
        more = '... and %u more (--verbose names them all)'
        end = (self.indexed(0) + self.plural(', %u unchanged', ', %u unchanged', 1)
               + self.plural(', %u gone', ', %u gone', 1) + self.tr('.'))
        said = self.run('index', 'tree')
        named = [line for line in said.stdout.splitlines() if line.startswith('    tree/')]
        if len(named) != N_NAMED + 1:
            raise Wrong(said.stdout)
        self.expect_lines(said, [*self.skipped(), *named, '    ' + self.plural(more, more, n)], end)

    def check_query(self):
        said = self.run('--limit', '1', 'query', 'needle')
        self.expect(said, 0, self.fill(self.tr('%s of %s (-n shows more)'), 1, 2) + '\n')
        self.expect(self.run('query', 'hay'), 1, self.tr('Nothing found.') + '\n')

    def check_errors(self):
        (self.folder / 'text').write_text('This is a text.\n')
        self.expect_error(self.tr('Say "index DIR" or "query WORDS...", or --help'), 'query')
        self.expect_error(
            self.fill(self.tr('%s takes a number of files, 1 or more: "%s" is none'), '-n', 'x'), '-n', 'x')
        self.expect_error(self.tr('The output cannot be written'), 'query', 'needle',
                          before=('sh', '-c', 'exec "$@" >/dev/full', 'sh'))
        self.expect_error(self.fill(self.tr('There is no index "%s"'), self.folder / 'none'), 'query', 'needle',
                          database='none')
        self.expect_error(self.fill(self.tr('The file "%s" is not a search index'), self.folder / 'text'),
                          'query', 'needle', database='text')


def check_speaker(program, built, language):
    with tempfile.TemporaryDirectory() as folder:
        speaker = Speaker(program, built, language, os.path.realpath(folder))
        speaker.write_tree()
        try:
            speaker.check_help()
            speaker.check_index_verbose()
            speaker.check_query()
            speaker.check_index_again()
            speaker.check_errors()
        except Wrong as wrong:
            return str(wrong)
    return None


def main(source, built, program):
    if catalogs.missing() is not None:
        print(f'1..0 # SKIP {catalogs.missing()}')
        return 0

    search = catalogs.Catalogs(source, 'docs/examples/search/po', 'docs/examples/search/*.c')
    checks = [('POTFILES.in', search.check_list)]
    for name in search.languages:
        checks.append((f'{name} complete', lambda name=name: search.check_complete(name)))
    for name in search.languages + ['C']:
        checks.append((f'{name} spoken', lambda name=name: check_speaker(program, built, name)))
    return catalogs.run_checks(checks)


sys.exit(main(*sys.argv[1:]))
