#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""check.py COVERAGE [--propose]: what gcovr has found (--json) is enough, and what is not reached is in the list
`uncovered` beside this file, with the reason, and nothing else. --propose prints what the list lacks. Without an
argument: each line of the list is one of the library's, as TAP."""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LEAST_LINES, LEAST_BRANCHES = 98, 92
HEADER = re.compile(r'(?P<path>[^\s:]+): (?P<reason>.+)')


def read_list():
    """Paragraphs: a file below bgloop/ and the reason; then lines of that file, which are in one place only. Before
    those that are not reached stands a minus, before those that are reached now and then a question mark."""
    text = (HERE / 'uncovered').read_text(encoding='utf-8')
    for paragraph in re.split(r'\n\s*\n', text.strip()):
        header, *lines = paragraph.splitlines()
        if header.startswith('#'):
            continue
        match = HEADER.fullmatch(header)
        if not match or not any(line[0] in '-?' for line in lines):
            raise SystemExit(f'this is nothing that is not reached:\n{paragraph}')
        yield match['path'], [line[1:].strip() for line in lines], [line[0] for line in lines]


def read_source(path):
    """Numbers and lines that are not empty."""
    lines = (ROOT / 'bgloop' / path).read_text(encoding='utf-8').splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def find_places(source, lines):
    return [i for i in range(len(source) - len(lines) + 1)
            if [line for number, line in source[i:i + len(lines)]] == lines]


def get_figures(report):
    """How many lines and branches there are and were reached, and by file which lines were not."""
    n = {'lines': [0, 0], 'branches': [0, 0]}
    missed = {}
    for file in report['files']:
        path = pathlib.PurePath(file['file']).relative_to('bgloop').as_posix()
        for line in file['lines']:
            if line.get('gcovr/noncode'):
                continue
            for kind, counts in ('lines', [line['count']]), ('branches', [b['count'] for b in line['branches']]):
                n[kind][0] += len(counts)
                n[kind][1] += sum(count > 0 for count in counts)
            if line['count'] == 0:
                missed.setdefault(path, set()).add(line['line_number'])
    return n, missed


def compare(missed):
    """Takes what the list has out of what was missed, and says what is wrong with the list."""
    for path, lines, marks in read_list():
        source = read_source(path)
        places = find_places(source, lines)
        if len(places) != 1:
            yield f'{path}: in {len(places)} places: ' + ' / '.join(lines)
            continue
        for (number, line), mark in zip(source[places[0]:], marks):
            if mark == '-' and number not in missed.get(path, ()):
                yield f'{path}:{number}: is reached: {line}'
            if mark in '-?':
                missed.get(path, set()).discard(number)


def check_list():
    problems = [problem for problem in compare({}) if ': in ' in problem]
    print('1..1')
    for problem in problems:
        print('#', problem)
    print('not ok' if problems else 'ok', '/coverage/uncovered')
    return 1 if problems else 0


def propose(missed):
    """Paragraphs that are found in one place."""
    for path, numbers in sorted(missed.items()):
        source = read_source(path)
        missing = [i for i, (number, line) in enumerate(source) if number in numbers]
        for last in (i for i in missing if i + 1 not in missing):
            first = last
            while first in missing or len(find_places(source, [line for number, line in source[first:last + 1]])) != 1:
                first -= 1
            print(f'{path}: ')
            for number, line in source[first:last + 1]:
                print('-' if number in numbers else ' ', line, sep='')
            print()


def main():
    if not sys.argv[1:]:
        return check_list()

    n, missed = get_figures(json.loads(pathlib.Path(sys.argv[1]).read_text(encoding='utf-8')))
    problems = list(compare(missed))
    if sys.argv[2:] == ['--propose']:
        propose(missed)
        return 0

    for kind, least in ('lines', LEAST_LINES), ('branches', LEAST_BRANCHES):
        percent = 100 * n[kind][1] / n[kind][0]
        print(f'{percent:.1f} % of the {kind}: {n[kind][1]} of {n[kind][0]}')
        if percent < least:
            problems.append(f'less than {least} % of the {kind}')
    for path, numbers in sorted(missed.items()):
        problems += [f'{path}:{number}: is not reached, and not in tests/coverage/uncovered: {line}'
                     for number, line in read_source(path) if number in numbers]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


sys.exit(main())
