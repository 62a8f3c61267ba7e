#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""check.py LIBRARY HEADERS DUMP: that the binary interface of the library is the one that was dumped.

With --update the dump is made anew, which belongs to the change that adds something."""

import pathlib
import subprocess
import sys
import tempfile


def dump(library, headers):
    return subprocess.run(
        ['abidw', '--headers-dir', headers, '--exported-interfaces-only', '--no-show-locs', '--no-comp-dir-path',
         '--no-corpus-path', '--no-elf-needed', library],
        check=True, capture_output=True, text=True).stdout


CHANGED = 4  # of abidiff's exit status; the lower bits are errors of its own


def compare(one, other, headers):
    """What is different, in words; nothing if nothing is."""
    run = subprocess.run(['abidiff', '--headers-dir1', headers, '--headers-dir2', headers, one, other],
                         check=False, capture_output=True, text=True)
    if run.returncode & (CHANGED - 1) or run.returncode < 0:
        raise RuntimeError(f'abidiff: {run.returncode}: {run.stderr}')
    return run.stdout if run.returncode & CHANGED else ''


def main():
    *options, library, headers, dumped = sys.argv[1:]
    if options == ['--update']:
        pathlib.Path(dumped).write_text(dump(library, headers), encoding='utf-8')
        return 0

    with tempfile.TemporaryDirectory() as folder:
        old = pathlib.Path(folder, 'old.abi')
        text = pathlib.Path(dumped).read_text(encoding='utf-8')
        checks = [('the interface is the one that was dumped', compare(dumped, library, headers), False)]
        for name, ours, theirs in (
            ('a function that went is found', 'bg_loop_flush', 'bg_loop_flush_before'),
            ('a value that changed is found', "name='BG_LOOP_STOPPED' value='2'", "name='BG_LOOP_STOPPED' value='3'"),
        ):
            assert ours in text
            old.write_text(text.replace(ours, theirs), encoding='utf-8')
            checks.append((name, compare(old, library, headers), True))

    print(f'1..{len(checks)}')
    failed = 0
    for number, (name, differences, expected) in enumerate(checks, 1):
        is_wrong = bool(differences) != expected
        failed += is_wrong
        print('not ok' if is_wrong else 'ok', number, '-', name)
        if is_wrong:
            print(''.join(f'# {line}\n' for line in differences.splitlines()), end='')
    return 1 if failed else 0


sys.exit(main())
