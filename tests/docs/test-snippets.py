#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compile what is shown in C and C++ on the pages and in doc comments, and run what is a whole program.

test-snippets.py C-COMPILER... -- [C++-COMPILER...] -- SOURCE-FOLDER PAGE...

A block with a main() is a program: it is run, and if a block of text that comes after it is marked with
a line "<!-- output -->" it prints just that. Marked with a line "<!-- before: … -->" it is compiled
only. One that ends in column 0 with a brace is a piece of a file; any other is statements, within an
asynchronous function of an object over a loop. In C++ every block is a program, or the statements of one.
Without a compiler for it, it is left out. A block that is marked with the path of a file is in that
file as it stands. A translated page, NAME.LANGUAGE.md, has the blocks of the original.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import tap

HANG = 120
BLOCK = re.compile(r'(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$',
                   re.DOTALL | re.MULTILINE)
DOC_COMMENT = re.compile(r'/\*\*\n(?P<text>.*?)\*/', re.DOTALL)
FUNCTION = re.compile(r'^(\w+) \(', re.MULTILINE)
WARNINGS = ['-Wall', '-Wextra', '-Werror', '-Wno-unused-parameter', '-Wno-unused-function']
STANDARD = {'c': '-std=gnu11', 'cpp': '-std=c++17'}
CPP_STATEMENTS = '''
#include <bgloop/bgloop.hpp>
#include <cassert>
#include <cstring>

using namespace std::chrono_literals;

int
main ()
{
%s
}
'''
BEFORE = '#include <bgloop/bgloop.h>\n#include <bgloop/bg-test.h>\n'
STATEMENTS = '''
typedef struct
{
  BgLoop *loop;
} ExampleClient;

void get_cb (GTask *task, gpointer source, gpointer data, GCancellable *cancellable);
void example_client_get_async (ExampleClient *self, BgLoop *loop, GCancellable *cancellable,
                               GAsyncReadyCallback callback, gpointer user_data, GError **error);

void
example_client_get_async (ExampleClient *self, BgLoop *loop, GCancellable *cancellable,
                          GAsyncReadyCallback callback, gpointer user_data, GError **error)
{
%s
}
'''


class Snippet:
    def __init__(self, where, match):
        self.code = match['code']
        self.language = match['language']
        self.mark = match['mark'] or ''
        function = FUNCTION.search(self.code)
        if self.language == 'cpp':
            self.name = f'{where}: {self.code.splitlines()[0].strip("#")}'
        else:
            self.name = f'{where}: {function[1] if function else self.code.split()[0].strip("#")}'
        self.output = None

    def is_program(self):
        return self.language == 'cpp' or re.search(r'^main \(', self.code, re.MULTILINE) is not None

    def get_source(self):
        if re.search(r'^main \(', self.code, re.MULTILINE):
            return self.code
        if self.language == 'cpp':
            return CPP_STATEMENTS % self.code
        if self.code.rstrip().splitlines()[-1].startswith('}'):
            return BEFORE + self.code
        return BEFORE + STATEMENTS % self.code

    def check(self, compilers, flags):
        compiler = [*compilers[self.language], STANDARD[self.language]]
        with tempfile.TemporaryDirectory() as folder:
            source, program = os.path.join(folder, 'snippet.' + self.language), os.path.join(folder, 'snippet')
            with open(source, 'w', encoding='utf-8') as file:
                file.write(self.get_source())
            how = [source, '-o', program, *flags] if self.is_program() else [
                '-fsyntax-only', source, *[flag for flag in flags if not flag.startswith(('-l', '-L'))]]
            result = subprocess.run([*compiler, *WARNINGS, *how], capture_output=True, text=True, timeout=HANG)
            if result.returncode != 0:
                return result.stderr
            if not self.is_program() or self.mark.startswith('before:'):
                return None

            result = subprocess.run([program], capture_output=True, text=True, timeout=HANG, cwd=folder)
            if result.returncode != 0 or result.stderr:
                return f'exit status {result.returncode}\n{result.stderr}'
            if self.output is not None and result.stdout != self.output:
                return f'It printed {result.stdout!r} instead of {self.output!r}.'
        return None


def check_quote(page, name, code):
    text = (page.parent / name).read_text(encoding='utf-8')
    return None if code in text else f'This is not in {name}.'


def check_translation(page, original):
    blocks = [[match[0] for match in BLOCK.finditer(path.read_text(encoding='utf-8'))] for path in (page, original)]
    return None if blocks[0] == blocks[1] else f'The blocks are not those of {original.name}.'


def read_page(page, checks, compilers, compile_it):
    original = page.with_name(page.name.split('.')[0] + '.md')
    if original != page:
        checks.append((f'{page.name}: translated', lambda: check_translation(page, original)))
        return

    program = None
    for match in BLOCK.finditer(page.read_text(encoding='utf-8')):
        if match['mark'] == 'output':
            program.output = match['code']
        if match['language'] not in (*compilers, 'meson'):
            continue

        snippet = Snippet(page.name, match)
        if '/' in snippet.mark and (page.parent / snippet.mark).is_file():
            checks.append((snippet.name, lambda code=match['code'], name=snippet.mark: check_quote(page, name, code)))
        elif match['language'] in compilers:
            program = snippet
            checks.append((snippet.name, lambda snippet=snippet: compile_it(snippet)))


def read_comments(path, checks, compile_it):
    for comment in DOC_COMMENT.finditer(path.read_text(encoding='utf-8')):
        text = re.sub(r'^ \* ?', '', comment['text'], flags=re.MULTILINE)
        text = re.sub(r'^\|\[<!-- language="C" -->$', '```c', text, flags=re.MULTILINE)
        text = re.sub(r'^\]\|$', '```', text, flags=re.MULTILINE)
        for match in BLOCK.finditer(text):
            if match['language'] == 'c':
                snippet = Snippet(path.name, match)
                checks.append((snippet.name, lambda snippet=snippet: compile_it(snippet)))


def main(arguments):
    compilers = {}
    for language in 'c', 'cpp':
        split = arguments.index('--')
        if split != 0:
            compilers[language] = arguments[:split]
        arguments = arguments[split + 1:]
    source, *pages = arguments
    flags = subprocess.run(['pkg-config', '--cflags', '--libs', 'bgloop-1'], check=True, capture_output=True,
                           text=True).stdout.split()

    checks = []
    for page in pages:
        read_page(pathlib.Path(page), checks, compilers, lambda snippet: snippet.check(compilers, flags))
    for path in sorted(pathlib.Path(source, 'bgloop').rglob('*.[ch]')):
        read_comments(path, checks, lambda snippet: snippet.check(compilers, flags))
    return tap.run(checks)


sys.exit(main(sys.argv[1:]))
