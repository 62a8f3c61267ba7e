#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that what a page of the tree links to in the tree is there, the heading too.

test-links.py SOURCE-FOLDER
"""

import pathlib
import re
import sys

import tap

LINK = re.compile(r'\[[^\]]*\]\((?P<path>[^):#]*)(?:#(?P<place>[^)]*))?\)')
BLOCK = re.compile(r'^```.*?^```$', re.DOTALL | re.MULTILINE)
CODE = re.compile(r'`[^`\n]*`')
HEADING = re.compile(r'^#+ (.*)$', re.MULTILINE)


def read_places(path):
    """What the headings of a page are called in links."""
    headings = HEADING.findall(BLOCK.sub('', path.read_text(encoding='utf-8')))
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def check(page):
    wrong = []
    for link in LINK.finditer(CODE.sub('', BLOCK.sub('', page.read_text(encoding='utf-8')))):
        target = page.parent / link['path'] if link['path'] else page
        if not target.exists():
            wrong.append(f'{link[0]}: there is no {link["path"]}.')
        elif link['place'] and link['place'] not in read_places(target):
            wrong.append(f'{link[0]}: there is no such heading.')
    return '\n'.join(wrong) or None


def main(source):
    root = pathlib.Path(source)
    pages = [*sorted(root.glob('*.md')), *sorted((root / 'docs').rglob('*.md'))]
    return tap.run([(str(page.relative_to(root)), lambda page=page: check(page)) for page in pages])


sys.exit(main(*sys.argv[1:]))
