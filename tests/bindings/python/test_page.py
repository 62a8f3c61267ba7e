# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs what docs/python.md shows. An expression that is followed by “# → …” has that value."""

import ast
import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import bgloop.testing
from util import HANG

PAGE = pathlib.Path(os.environ['BGLOOP_SOURCE_DIR']).parents[1] / 'docs' / 'python.md'
BLOCK = re.compile(r'(?:<!-- (?P<how>\w+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```\n', re.DOTALL)
VALUE = re.compile(r'# → (.*)$')


class Checks(ast.NodeTransformer):
    """Turns expressions with a value beside them into checks."""

    def __init__(self, code):
        self.lines = code.splitlines()
        self.n = 0

    def visit_Expr(self, node):
        match = VALUE.search(self.lines[node.end_lineno - 1])
        if match is None:
            return node

        self.n += 1
        call = ast.parse(f'__check(0, {match[1]!r})').body[0]
        call.value.args[0] = node.value
        return ast.copy_location(call, node)


class Page(unittest.TestCase):
    def get_blocks(self, how):
        return [match['code'] for match in BLOCK.finditer(PAGE.read_text(encoding='utf-8'))
                if match['language'] == 'python' and match['how'] == how]

    def test_snippets(self):
        def check(value, expected):
            self.assertEqual(str(value), expected)

        blocks = self.get_blocks(None)
        self.assertGreater(len(blocks), 5)
        for code in blocks:
            with self.subTest(code.splitlines()[-1]):
                checks = Checks(code)
                tree = ast.fix_missing_locations(checks.visit(ast.parse(code)))
                self.assertEqual(checks.n, len(re.findall('# →', code)))
                names = {'__check': check, '__name__': 'page'}
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(tree, 'docs/python.md', 'exec'), names)
                names.clear()
                bgloop.testing.assert_no_loops()

    def run_file(self, code, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'test_page.py')
            with open(path, 'w') as file:
                file.write(code)
            process = subprocess.run([sys.executable, *arguments, path], cwd=folder, timeout=HANG,
                                     capture_output=True, text=True)
        self.assertEqual(process.returncode, 0, process.stdout + process.stderr)
        return process.stdout + process.stderr

    def test_unittest(self):
        for code in self.get_blocks('unittest'):
            self.assertIn('Ran 1 test', self.run_file(code))

    def test_pytest(self):
        try:
            import pytest  # noqa: F401
        except ImportError:
            self.skipTest('pytest is not installed (on Debian: python3-pytest)')
        for code in self.get_blocks('pytest'):
            self.assertIn('1 passed', self.run_file(code, '-m', 'pytest', '-p', 'no:cacheprovider'))
