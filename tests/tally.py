#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Count what `meson test` did, by sub-test.

tally.py NAME=BUILD_DIR:test|benchmark... says what failed in these build directories and ends with the
line "N passed, N failed". What should have run and did not is a failure; what was skipped is neither.
"""

import collections
import glob
import json
import os
import re
import sys

TAP_RESULT = re.compile(r'(not )?ok\b\s*(?:\d+\s*)?(?:- )?([^#]*)(?:#\s*(skip|todo)?\s*(.*))?', re.IGNORECASE)
TAP_PLAN = re.compile(r'1\.\.(\d+)(?:\s*#\s*skip\S*\s*(.*))?', re.IGNORECASE)
GTEST_RESULT = re.compile(r'\[\s*(OK|FAILED|SKIPPED)\s*\] (\S+) \(\d+ ms\)')
NOISE = re.compile(r'# GLib-DEBUG: g_set_user_dirs:|ok\b|# (Start|End) of ')
# What the test setups leave out: see tests/meson.build.
SETUP_LOG = re.compile(r'testlog-\w+\.json')
NOT_IN_SETUPS = {'bindings', 'consumers', 'docs', 'gates'}
TAIL = 40


class Tally:
    def __init__(self):
        self.passed = []
        self.failed = []
        self.skipped = []

    def __len__(self):
        return len(self.passed) + len(self.failed) + len(self.skipped)

    def extend(self, other, prefix):
        self.passed += [(prefix + name).rstrip() for name in other.passed]
        self.failed += [(prefix + name).rstrip() for name in other.failed]
        self.skipped += [(prefix + name).rstrip() for name in other.skipped]


def count_tap(stdout):
    tally = Tally()
    planned = None
    for line in stdout.splitlines():
        if plan := TAP_PLAN.match(line):
            planned = int(plan[1])
            if planned == 0 and plan[2]:
                tally.skipped.append(f'({plan[2]})')
        elif result := TAP_RESULT.match(line):
            bad, name, directive = result[1], result[2].strip(), (result[3] or '').lower()
            if directive == 'skip' and not bad:
                tally.skipped.append(f'{name} ({result[4]})' if result[4] else name)
            elif directive == 'todo':
                (tally.skipped if bad else tally.failed).append(name)
            else:
                (tally.failed if bad else tally.passed).append(name)
    if planned is None:
        tally.failed.append('(no plan)')
    else:
        tally.failed += ['(planned, did not run)'] * (planned - len(tally))
    return tally


def count_gtest(stdout):
    tally = Tally()
    for result, name in GTEST_RESULT.findall(stdout):
        {'OK': tally.passed, 'FAILED': tally.failed, 'SKIPPED': tally.skipped}[result].append(name)
    return tally


def count_program(protocol, entry):
    stdout, result = entry.get('stdout') or '', entry['result']
    tally = Tally()
    if protocol == 'tap':
        tally = count_tap(stdout)
    elif protocol == 'gtest':
        tally = count_gtest(stdout)
    elif result in ('OK', 'EXPECTEDFAIL'):
        tally.passed.append('')
    elif result == 'SKIP':
        tally.skipped.append('')
    if result not in ('OK', 'EXPECTEDFAIL', 'SKIP') and not tally.failed:
        tally.failed.append(f'({result.lower()}, exit status {entry["returncode"]})')
    return tally


def count_build(build_dir, kind):
    """Returns the tally of a build directory and the log entries of what failed in it."""
    tally, bad = Tally(), []
    try:
        with open(os.path.join(build_dir, 'meson-info', f'intro-{kind}s.json')) as file:
            tests = json.load(file)
    except (OSError, ValueError):
        tests = []
    logs = glob.glob(os.path.join(build_dir, 'meson-logs', 'testlog*.json'))
    if logs and all(SETUP_LOG.fullmatch(os.path.basename(path)) for path in logs):
        tests = [test for test in tests
                 if not NOT_IN_SETUPS & {suite.split(':')[-1] for suite in test['suite']}]
    protocols = {test['name']: test['protocol'] for test in tests}
    expected = collections.Counter(test['name'] for test in tests)

    for path in logs:
        with open(path) as file:
            entries = [json.loads(line) for line in file]
        for entry in entries:
            # “PROJECT:SUITE / NAME”, and in newer Mesons “SUITE - PROJECT:NAME”
            name = re.split(' / |:', entry['name'])[-1]
            expected[name] -= 1
            program = count_program(protocols.get(name), entry)
            tally.extend(program, name + ' ')
            if program.failed:
                bad.append(entry)

    tally.failed += [f'{name} (did not run)' for name in (+expected).elements()]
    if not len(tally):
        tally.failed.append('(nothing ran)')
    return tally, bad


def main(arguments):
    total = Tally()
    for argument in arguments:
        name, build_dir = argument.split('=', 1)
        build_dir, kind = build_dir.rsplit(':', 1)
        tally, bad = count_build(build_dir, kind)
        total.extend(tally, f'{name}: ')
        for entry in bad:
            print(f'\n-- {name}: {entry["name"]}, exit status {entry["returncode"]}')
            for stream in ('stderr', 'stdout'):
                lines = (entry.get(stream) or '').splitlines()
                lines = [line for line in lines if not NOISE.match(line)]
                if len(lines) > TAIL:
                    print(f'({stream}: the last {TAIL} of {len(lines)} lines)')
                print(*lines[-TAIL:], sep='\n')

    print()
    for name in total.skipped:
        print('skipped:', name)
    for name in total.failed:
        print('failed: ', name)
    print(f'{len(total.passed)} passed, {len(total.failed)} failed')
    return 1 if total.failed or not total.passed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
