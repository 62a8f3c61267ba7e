#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Check that the tables of messages have every message of the library, and no other.

test-messages.py SOURCE-FOLDER PAGE...: a message is a string of more than one word in the library's own
sources, those for Python included, where what is raised about an argument is none.
"""

import ast
import pathlib
import re
import sys

import tap

TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|^\s*#[^\n]*|\'(?:\\.|[^\'\\])\'|"(?:\\.|[^"\\])*"', re.DOTALL | re.MULTILINE)
FORMAT_MACRO = re.compile(r'"\s*G_G\w+_(?:FORMAT|MODIFIER)\s*(?:"|(?=[,)]))')
STRINGS = re.compile(r'"(?:\\.|[^"\\])*"(?:\s*"(?:\\.|[^"\\])*")*')
PIECE = re.compile(r'"((?:\\.|[^"\\])*)"')
DIRECTIVE = re.compile(r'%[-+ 0#]*\d*(?:\.\d+)?(?:ll|l|z)?[a-z]?')
CODE = re.compile(r'(?<!`)`([^`\n]+)`(?!`)')
ROW = re.compile(r'^\|(?P<first>[^|\n]*)\|', re.MULTILINE)

# Names of sources, and what is read or written for the library's own use.
NO_MESSAGE = re.compile(r'bgloop [a-z]+|a source of its context|tfd: |dconf worker|%ld |test kit|up to %u at priority|(?:%s: )?left behind')
# The same of Python's: names, and marks that are compared.
NO_PYTHON_MESSAGE = re.compile(r'bgloop flush|delayed function|timed out|the end of asyncio|\^|running %s')
ABOUT_ARGUMENTS = {'AttributeError', 'OverflowError', 'TypeError', 'ValueError'}
# Pieces of which others are put together: the whole is what the table has.
PART = re.compile(r'TRUE with|FALSE without|default |%d ms|the %sloop')


def straighten(text):
    return text.replace('“', '"').replace('”', '"').replace('\\"', '"').replace('\\n', '')


def read_messages(source):
    messages = {}
    for path in sorted(pathlib.Path(source, 'bgloop').rglob('*.c')):
        if 'bindings' in path.parts:
            continue
        text = TOKEN.sub(lambda token: token[0] if token[0][0] in '"\'' else ' ', path.read_text(encoding='utf-8'))
        text = FORMAT_MACRO.sub('d" "', text)
        for strings in STRINGS.finditer(text):
            message = straighten(''.join(PIECE.findall(strings[0])))
            if ' ' in message.strip() and re.search('[a-z]{2}', message) and not NO_MESSAGE.match(message):
                messages[message] = path.name
    return messages


def walk_python(node):
    """The strings of a tree, with %s for what is filled in, but for doc strings."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ABOUT_ARGUMENTS:
        return
    if isinstance(node, ast.JoinedStr):
        yield ''.join(piece.value if isinstance(piece, ast.Constant) else '%s' for piece in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        for child in ast.iter_child_nodes(node):
            yield from walk_python(child)


def read_python_messages(source):
    folder = pathlib.Path(source, 'bgloop', 'bindings')
    messages = {}
    for path in [folder / 'Bg.py', *sorted((folder / '_bgloop').glob('*.py'))]:
        for message in walk_python(ast.parse(path.read_text(encoding='utf-8'))):
            if ' ' in message.strip() and re.search('[a-z]{2}', message) and not NO_PYTHON_MESSAGE.match(message):
                messages[message] = path.name
    return messages


def get_pattern(message):
    """What a message looks like in the tables."""
    end, pattern = 0, ''
    for directive in DIRECTIVE.finditer(message):
        pattern += re.escape(message[end:directive.start()]) + '.*'
        end = directive.end()
    return re.compile(pattern + re.escape(message[end:]))


def read_rows(text):
    return {straighten(code) for row in ROW.finditer(text) for code in CODE.findall(row['first'])}


def main(source, *pages):
    messages = read_messages(source) | read_python_messages(source)
    text = '\n'.join(pathlib.Path(page).read_text(encoding='utf-8') for page in pages)
    said = {straighten(code) for code in CODE.findall(text)}
    patterns = {message: get_pattern(message) for message in messages}

    def check_message(message):
        found = PART.match(message) or any(patterns[message].search(code) for code in said)
        return None if found else 'No table has it.'

    def check_row(row):
        for message, pattern in patterns.items():
            text = row.strip('… ')
            if len(DIRECTIVE.sub('', message).strip()) > 4 and (pattern.search(row) or text in message):
                return None
        return 'The library does not say so.'

    checks = [(f'{name}: {message}'.replace('#', ''), lambda message=message: check_message(message))
              for message, name in messages.items()]
    checks += [(f'row: {row}'.replace('#', ''), lambda row=row: check_row(row)) for row in sorted(read_rows(text))]
    return tap.run(checks)


sys.exit(main(*sys.argv[1:]))
