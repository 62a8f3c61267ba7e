#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make a page of the reference from one that is read in the source tree.

make-page.py GIR PAGE OUTPUT NAME...: gives the page a title, links the functions that it names to
their own pages, and links to the other pages NAME... to what they become. Pictures are in the folder
of the page. A function of the library that is not in the GIR is an error.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree

CORE = '{http://www.gtk.org/introspection/core/1.0}'
IDENTIFIER = '{http://www.gtk.org/introspection/c/1.0}identifier'
KINDS = {'constructor': 'ctor', 'method': 'method', 'function': 'func', 'function-macro': 'func'}

FENCE = re.compile(r'^```.*?^```$', re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r'<!--.*?-->\n', re.DOTALL)
FUNCTION = re.compile(r'`(bg_[a-z_]+) ?\(\)`')
PICTURE = re.compile(r'(!\[[^\]]*\])\([^):]*?([^):/]+)\)')
# A line of its own that leads to the page in another language, which the site does not have.
TRANSLATION = re.compile(r'^\[[^\]]*\]\([^)]*\.[a-z]{2}_[A-Z]{2}\.md\)\n\n', re.MULTILINE)
LINK = re.compile(r'(?<!!)\[([^\]]*)\]\(([^):]+?)(#[^)]*)?\)')


def read_functions(gir):
    """Returns what gi-docgen's links call each function."""
    functions = {}
    namespace = xml.etree.ElementTree.parse(gir).find(CORE + 'namespace')
    for parent in namespace.iter():
        prefix = [namespace.get('name')]
        if parent is not namespace:
            prefix.append(parent.get('name') or '')
        for child in parent:
            kind = KINDS.get(child.tag.removeprefix(CORE))
            if kind is not None:
                functions[child.get(IDENTIFIER)] = f'[{kind}@{".".join(prefix + [child.get("name")])}]'
    return functions


def convert(text, functions, names):
    def link_function(match):
        return functions[match[1]]

    def link_page(match):
        path = pathlib.PurePath(match[2])
        if path.name in names:
            return f'[{match[1]}]({path.stem}.html{match[3] or ""})'
        return match[1]

    text = PICTURE.sub(r'\1(\2)', TRANSLATION.sub('', text))
    return LINK.sub(link_page, FUNCTION.sub(link_function, text))


def main(gir, page, output, *names):
    functions = read_functions(gir)
    text = COMMENT.sub('', pathlib.Path(page).read_text(encoding='utf-8'))
    title = text.splitlines()[0].removeprefix('# ')

    parts, end = [f'Title: {title}\n\n'], 0
    for fence in FENCE.finditer(text):
        parts += [convert(text[end:fence.start()], functions, names), fence[0]]
        end = fence.end()
    parts.append(convert(text[end:], functions, names))
    pathlib.Path(output).write_text(''.join(parts), encoding='utf-8')


try:
    main(*sys.argv[1:])
except KeyError as error:
    sys.exit(f'{sys.argv[2]}: the GIR has no {error.args[0]}()')
