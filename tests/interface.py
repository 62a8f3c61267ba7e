#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""interface.py LIBRARY GIR HEADER...: that the library exports what its public headers declare, and that
other languages are told the same functions and types. Without a library, or a GIR, it is "-"."""

import re
import subprocess
import sys
import xml.etree.ElementTree

C = '{http://www.gtk.org/introspection/c/1.0}'
GLIB = '{http://www.gtk.org/introspection/glib/1.0}'
CORE = '{http://www.gtk.org/introspection/core/1.0}'

DECLARED = re.compile(r'^(?:BG_AVAILABLE_IN_\w+\n)?\w[^;{}()]*\b(bg_\w+) \(', re.MULTILINE)
AVAILABLE = re.compile(r'^BG_AVAILABLE_IN_\w+\n\w[^;{}()]*\b(bg_\w+) \(', re.MULTILINE)
FINAL_TYPE = re.compile(r'^BG_AVAILABLE_IN_\w+\nG_DECLARE_FINAL_TYPE \((\w+), (\w+),', re.MULTILINE)
TYPE = re.compile(r'^typedef (?:struct \w+ |.*\(\*)?(Bg\w+)(?:;|\) \()|^\} (Bg\w+);', re.MULTILINE)
KINDS = {'callback', 'class', 'enumeration', 'record'}


def read_library(path):
    """What the library exports, but for what a sanitizer adds to it."""
    text = subprocess.run(['nm', '-D', '--defined-only', path], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split('@')[0] for line in text.splitlines()}
    return {name for name in names if not name.startswith('_')}


def read_headers(texts):
    """The functions that the headers declare, those of them that say since when, and the types."""
    declared, available, types = set(), set(), set()
    for text in texts:
        text = re.sub(r'/\*.*?\*/|^ *#(?:\\\n|[^\n])*', '', text, flags=re.DOTALL | re.MULTILINE)
        declared.update(DECLARED.findall(text))
        available.update(AVAILABLE.findall(text))
        types.update(name or other for name, other in TYPE.findall(text))
        for name, prefix in FINAL_TYPE.findall(text):
            declared.add(f'{prefix}_get_type')
            available.add(f'{prefix}_get_type')
            types.update({name, name + 'Class'})
    return declared, available, types


def read_gir(path):
    """The functions and the types that are told to other languages."""
    functions, types = set(), set()
    for node in xml.etree.ElementTree.parse(path).find(CORE + 'namespace').iter():
        if node.tag != CORE + 'function-macro':
            functions.update({node.get(C + 'identifier'), node.get(GLIB + 'get-type')} - {None, 'intern'})
        if node.tag.removeprefix(CORE) in KINDS:
            types.add(node.get(C + 'type'))
    return {name for name in functions if name.startswith('bg_')}, types


def compare(one, ours, other, theirs):
    """What one has and the other has not, a line each."""
    for name in sorted(ours - theirs):
        yield f'{one}, not {other}: {name}'
    for name in sorted(theirs - ours):
        yield f'{other}, not {one}: {name}'


def main():
    library, gir, *headers = sys.argv[1:]
    texts = []
    for path in headers:
        with open(path, encoding='utf-8') as file:
            texts.append(file.read())
    declared, available, types = read_headers(texts)

    checks = [('each declaration says since when', 'declared', declared, 'available', available)]
    if library != '-':
        checks.append(('the library exports what is declared', 'exported', read_library(library), 'declared', declared))
    if gir != '-':
        functions, boxes = read_gir(gir)
        checks += [
            ('the GIR has the functions', 'declared', declared, 'in the GIR', functions),
            ('the GIR has the types', 'declared', types, 'in the GIR', boxes),
        ]

    print(f'1..{len(checks)}')
    failed = 0
    for number, (name, *sides) in enumerate(checks, 1):
        faults = list(compare(*sides))
        is_wrong = len(faults) > 0 or len(sides[1]) < 10
        failed += is_wrong
        print('not ok' if is_wrong else 'ok', number, '-', name)
        for fault in faults:
            print('#', fault)
    return 1 if failed else 0


sys.exit(main())
