#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that whatever a page of the reference links to on the site is there, and that links lead to it.

check-links.py FOLDER
"""

import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.anchors = set()
        self.links = set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ('id', 'name') and tag != 'input':
                self.anchors.add(value)
            elif name in ('href', 'src') and value:
                self.links.add(value)


def find_orphans(pages):
    """Returns the pages that nobody comes to who starts at the first one."""
    reached, ahead = set(), ['index.html']
    while ahead:
        name = ahead.pop()
        if name in pages and name not in reached:
            reached.add(name)
            ahead += [urllib.parse.urlsplit(link).path for link in pages[name].links]
    return pages.keys() - reached


def main(folder):
    folder = pathlib.Path(folder)
    pages = {path.name: Page(path) for path in sorted(folder.glob('*.html'))}
    bad = n = 0
    for name, page in pages.items():
        for link in sorted(page.links):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme:
                continue
            n += 1
            target = parts.path or name
            if not (folder / target).is_file():
                print(f'{name}: no {link}')
                bad += 1
            elif parts.fragment and target in pages and parts.fragment not in pages[target].anchors:
                print(f'{name}: no such place: {link}')
                bad += 1
    for name in sorted(find_orphans(pages)):
        print(f'{name}: no link leads to it')
        bad += 1
    print(f'{len(pages)} pages, {n} links on the site, {bad} wrong')
    return 0 if n > 0 and bad == 0 else 1


sys.exit(main(sys.argv[1]))
