#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""Changes one thing of the library at a time, as the lists beside this file have it, and says which test notices.

A mutation is a paragraph of a list. Its first line names the file below bgloop/, the tests that it belongs to, which
are run before all others, and what is wrong then; the others are lines of that file, those with a minus before, and
those with a plus after:

    inbox/bg-inbox.c (wakeup, post): whoever appends to an empty queue does not wake the loop
     if (was_empty)
    -  wake (self);
    +  (void) wake;

They are compared without the blanks at both ends of a line, and are found in exactly one place. A paragraph that ends
with a line “! REASON” is of what no test can notice: it is listed and not run. What orders.list has is seen by
ThreadSanitizer only, where the processor does not take the liberty; its own tests are run in such a build. What
bindings.list has is Python, whose lines have their blanks: it is seen by the tests of the bindings."""

import argparse
import ast
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OPTIONS = ['-Dvapi=disabled', '-Dexamples=disabled']
C_OPTIONS = ['-Dintrospection=disabled', '-Dpython=disabled']
PYTHON_OPTIONS = ['-Dintrospection=enabled', '-Dpython=enabled']
PLAIN_OPTIONS = ['-Dlock_checks=true', '-Dsysprof=auto']
TSAN_OPTIONS = ['-Db_sanitize=thread', '-Doptimization=1']
# Their tests are run where a build is for them, and no others are there.
SUITES_APART = {'bindings', 'consumers', 'docs', 'gates', 'examples'}
# What reads the sources and not what they do.
NO_TESTS = {'rows', 'abi', 'interface', 'mutations', 'planted', 'uncovered'}
HEADER = re.compile(r'(?P<file>\S+) \((?P<tests>[^)]*)\): (?P<what>.+)')


@dataclasses.dataclass
class Build:
    """How a list's mutations are built, and with what tests."""
    options: list
    suites: set = dataclasses.field(default_factory=set)  # of those apart
    setup: str = ''
    own_tests: bool = False  # no others than those that a mutation belongs to


PLAIN = 'plain'
# By the name of the list; all others are plain.
BUILDS = {
    PLAIN: Build(C_OPTIONS + PLAIN_OPTIONS),
    'orders': Build(C_OPTIONS + TSAN_OPTIONS, setup='tsan', own_tests=True),
    'bindings': Build(PYTHON_OPTIONS + PLAIN_OPTIONS, {'bindings'}),
}


@dataclasses.dataclass
class Mutation:
    """Old and new are lines of the file."""
    file: str
    tests: list
    what: str
    old: list
    new: list
    reason: str = ''
    build: str = PLAIN

    @classmethod
    def parse(cls, paragraph, build):
        header, *lines = paragraph.splitlines()
        match = HEADER.fullmatch(header)
        reason = ''
        if match and lines and lines[-1].startswith('! '):
            reason = lines.pop()[2:]
        if not match or not lines or any(line[0] not in ' -+' for line in lines):
            raise SystemExit(f'this is no mutation:\n{paragraph}')
        return cls(match['file'], re.findall(r'[^\s,]+', match['tests']), match['what'],
                   [line[1:] for line in lines if line[0] != '+'],
                   [line[1:] for line in lines if line[0] != '-'], reason, build)

    def apply(self, text):
        """The changed text, or None where the place is not found, is not the only one, or becomes no Python."""
        lines, old = text.split('\n'), [line.strip() for line in self.old]
        places = [i for i in range(len(lines) - len(old) + 1)
                  if [line.strip() for line in lines[i:i + len(old)]] == old]
        if len(places) != 1 or [line.strip() for line in self.new] == old:
            return None
        changed = '\n'.join(lines[:places[0]] + self.new + lines[places[0] + len(old):])
        try:
            if self.file.endswith('.py'):
                ast.parse(changed)
        except SyntaxError:
            return None
        return changed


def has_code(path):
    if path.suffix == '.h':
        return 'static inline' in path.read_text()
    if path.suffix == '.py':  # and not only what it is for
        return any(not isinstance(statement, ast.Expr) for statement in ast.parse(path.read_text()).body)
    return path.suffix in ('.c', '.hpp')


def read_lists(paths):
    return [Mutation.parse(paragraph, path.stem if path.stem in BUILDS else PLAIN) for path in paths
            for paragraph in re.split(r'\n\s*\n', path.read_text().strip())]


def check(mutations):
    """As TAP: that each applies, and that no file of the library with code in it has none."""
    problems = [f'{m.file}: does not apply: {m.what}' for m in mutations
                if not (ROOT / 'bgloop' / m.file).exists() or m.apply((ROOT / 'bgloop' / m.file).read_text()) is None]
    files = {path.relative_to(ROOT / 'bgloop').as_posix() for path in (ROOT / 'bgloop').rglob('*') if has_code(path)}
    without = [f'{name}: has no mutation' for name in sorted(files - {m.file for m in mutations})]
    print('1..2')
    for found, what in [(problems, 'each-applies'), (without, 'each-file-has-one')]:
        for problem in found:
            print(f'# {problem}')
        print(f'{"not ok" if found else "ok"} /mutations/{what}')
    return 1 if problems or without else 0


def run(*command, cwd, **more):
    return subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)


class Scratch:
    """A copy of the project, which passes as it is."""

    def __init__(self, folder, args, build):
        self.folder, self.args, self.build = folder, args, build
        for name in run('git', 'ls-files', '-z', cwd=ROOT, check=True).stdout.split('\0')[:-1]:
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        run('meson', 'setup', 'build', *OPTIONS, *build.options, cwd=folder, check=True)
        run('ninja', '-C', 'build', cwd=folder, check=True)
        listed = json.loads(run('meson', 'introspect', '--tests', 'build', cwd=folder, check=True).stdout)
        self.tests = [test['name'] for test in listed
                      if test['name'] not in NO_TESTS
                      and {suite.split(':')[-1] for suite in test['suite']} & SUITES_APART == build.suites]
        failed = None if args.only or build.own_tests else self.test(self.tests)
        if failed:
            raise SystemExit(f'without any mutation this fails: {failed}')

    def test(self, tests):
        """The first of these that fails, and how."""
        env = dict(os.environ, BGLOOP_TEST_SCALE=str(self.args.scale), BGLOOP_MODEL_SEEDS=str(self.args.seeds))
        setup = self.build.setup
        log = self.folder / 'build' / 'meson-logs' / f'testlog{"-" * bool(setup)}{setup}.json'
        run('meson', 'test', '-C', 'build', '--no-rebuild', '--maxfail=1', f'--num-processes={self.args.jobs}',
            f'--timeout-multiplier={self.args.timeout}', *([f'--setup={setup}'] if setup else []), *tests,
            cwd=self.folder, env=env)
        for line in log.read_text().splitlines():
            result = json.loads(line)
            if result['result'] in ('FAIL', 'ERROR', 'TIMEOUT'):
                failed = re.search(r'^not ok \d* *-? *(\S+)', result.get('stdout', ''), re.M)
                how = failed[1] if failed else 'hangs' if result['result'] == 'TIMEOUT' else 'crashes'
                return f'{result["name"].split(" / ")[-1].split(":")[-1]} ({how})'
        return None

    def catch(self, mutation):
        """Who notices it."""
        first = [name for name in mutation.tests if name in self.tests]
        rest = [name for name in self.tests if name not in first and not (self.args.only or self.build.own_tests)]
        return (first and self.test(first)) or (rest and self.test(rest))

    def try_mutation(self, mutation):
        path = self.folder / 'bgloop' / mutation.file
        sound = path.read_text()
        try:
            path.write_text(mutation.apply(sound))
            built = run('ninja', '-C', 'build', cwd=self.folder)
            if built.returncode != 0:
                return 'DOES NOT BUILD'
            return self.catch(mutation) or 'SURVIVES'
        finally:
            path.write_text(sound)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='only whether all of them apply')
    parser.add_argument('--list', action='append', type=pathlib.Path, help='of these lists, not of all')
    parser.add_argument('--match', default='', help='only those whose file and description this is found in')
    parser.add_argument('--only', action='store_true', help='run only the tests that a mutation belongs to')
    parser.add_argument('--scale', type=int, default=10, help='percent of the repetitions')
    parser.add_argument('--seeds', type=int, default=300, help='of the random tester')
    parser.add_argument('--timeout', type=float, default=0.2, help='how much of the limit of each test')
    parser.add_argument('--jobs', type=int, default=3)
    args = parser.parse_args()

    mutations = read_lists(args.list or sorted(HERE.glob('*.list')))
    if args.check:
        return check(mutations)
    n_caught = n_run = n_reasons = 0
    with tempfile.TemporaryDirectory(prefix='bgloop-mutations-') as folder:
        scratches = {}
        for mutation in mutations:
            if args.match not in f'{mutation.file}: {mutation.what}':
                continue
            begin = time.monotonic()
            if mutation.reason:
                n_reasons += 1
                result = f'no test: {mutation.reason}'
            else:
                name = mutation.build
                if name not in scratches:
                    scratches[name] = Scratch(pathlib.Path(folder, name), args, BUILDS[name])
                result = scratches[name].try_mutation(mutation)
                n_run += 1
                n_caught += not result.isupper()
            print(f'{mutation.file}: {mutation.what}\n    {result}  [{time.monotonic() - begin:.0f} s]', flush=True)
    print(f'{n_caught} of {n_run} caught, {n_reasons} that no test can catch')
    return 0 if n_caught == n_run else 1


sys.exit(main())
