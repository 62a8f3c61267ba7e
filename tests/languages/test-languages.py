#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that each language has every message, and that programs get them.

test-languages.py SOURCE-FOLDER CATALOGS PROGRAM
"""

import gettext
import sys

import catalogs

NOT_WITHOUT_HOLDS = 'The loop "%s" has not stopped within %d ms: %s'
NOT_STARTED = 'A call to the loop "%s" did not start within %d ms: %s'
CLOSED = 'The loop "%s" takes no more work'
MORE = ('and %u more hold or operation', 'and %u more holds and operations')


def check_said(built, program, language):
    """What a program says that has called setlocale()."""
    said = catalogs.run_in(language, program, built, 'setlocale')
    if said.returncode != 0:
        return said.stderr
    catalog = gettext.translation('bgloop', built, [language])
    late, report, closed = said.stdout.splitlines()
    if not late.startswith(catalog.gettext(NOT_STARTED) % ('x', 0, '')):
        return said.stdout
    if closed != catalog.gettext(CLOSED) % 'x':
        return said.stdout
    if not report.startswith(catalog.gettext(NOT_WITHOUT_HOLDS) % ('x', 0, '')):
        return said.stdout
    if catalog.ngettext(*MORE, 2) % 2 not in report:
        return said.stdout
    return None


def check_silent(built, program, language):
    """What one says that has not."""
    said = catalogs.run_in(language, program, built)
    if said.returncode != 0 or '?' in said.stdout or not said.stdout.isascii():
        return said.stdout + said.stderr
    return None if said.stdout.splitlines()[2] == CLOSED % 'x' else said.stdout


def main(source, built, program):
    if catalogs.missing() is not None:
        print(f'1..0 # SKIP {catalogs.missing()}')
        return 0

    library = catalogs.Catalogs(source, 'po', 'bgloop/**/*.c', 'bgloop/**/*.py')
    checks = [('POTFILES.in', library.check_list)]
    for name in library.languages:
        checks.append((f'{name} complete', lambda name=name: library.check_complete(name)))
        checks.append((f'{name} with setlocale', lambda name=name: check_said(built, program, name)))
        checks.append((f'{name} without', lambda name=name: check_silent(built, program, name)))
    return catalogs.run_checks(checks)


sys.exit(main(*sys.argv[1:]))
