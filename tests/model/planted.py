#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""Takes faults that the library once had back in, one after the other, and says how many seeds the
random test needs to find each.

Each patch in planted/ is applied to a scratch copy, of which only the library and the random test
are built."""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COPIED = ['bgloop', 'tests', 'docs', 'meson.build', 'meson_options.txt']
OPTIONS = ['-Dintrospection=disabled', '-Dvapi=disabled', '-Dexamples=false']


def run(*command, cwd, check=True, timeout=None):
    return subprocess.run(command, cwd=cwd, check=check, timeout=timeout, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def copy_tree(scratch):
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, scratch / name)
        else:
            shutil.copy(source, scratch / name)
    run('meson', 'setup', 'build', *OPTIONS, cwd=scratch)
    run('ninja', '-j2', '-C', 'build', 'tests/model/model', cwd=scratch)


def try_patch(scratch, patch, args):
    """How many seeds it took, None if all passed, or a word that says what went wrong."""
    applied = run('patch', '-p1', '--force', '-i', str(patch), cwd=scratch, check=False)
    try:
        if applied.returncode != 0:
            return 'does not apply'
        built = run('ninja', '-j2', '-C', 'build', 'tests/model/model', cwd=scratch, check=False)
        if built.returncode != 0:
            return 'does not build'
        model = run('build/tests/model/model', '--failures', '1', '--seeds', str(args.seeds),
                    '--patience', str(args.patience), '--first', str(args.first), cwd=scratch,
                    check=False)
        failed = re.findall(r'^seed (\d+) failed', model.stdout, re.M)
        if args.verbose and failed:
            print('\n'.join(line[:200] for line in model.stdout.splitlines()[:6]), flush=True)
        return min(map(int, failed)) - args.first + 1 if failed else None
    finally:
        if applied.returncode == 0:
            run('patch', '-p1', '--reverse', '-i', str(patch), cwd=scratch)
        else:
            for rejected in scratch.rglob('*.rej'):
                rejected.unlink()
            for original in scratch.rglob('*.orig'):
                original.rename(original.with_suffix(''))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('patches', nargs='*', type=pathlib.Path, help='these, instead of planted/')
    parser.add_argument('--seeds', type=int, default=20000)
    parser.add_argument('--first', type=int, default=1)
    parser.add_argument('--patience', type=int, default=5, help='seconds until a scenario hangs')
    parser.add_argument('--verbose', action='store_true', help='how each was found')
    args = parser.parse_args()
    patches = args.patches or sorted((HERE / 'planted').glob('*.patch'))

    n_found = n_tried = 0
    with tempfile.TemporaryDirectory(prefix='bgloop-planted-') as folder:
        scratch = pathlib.Path(folder)
        copy_tree(scratch)
        for patch in patches:
            begin = time.monotonic()
            seeds = try_patch(scratch, patch.resolve(), args)
            n_tried += not isinstance(seeds, str)
            n_found += isinstance(seeds, int)
            what = 'not found' if seeds is None else seeds
            print(f'{patch.stem:45} {what:>15} {time.monotonic() - begin:6.0f} s', flush=True)
    print(f'{n_found} of {n_tried} found within {args.seeds} seeds')
    return 0 if n_found * 5 >= n_tried * 4 else 1


sys.exit(main())
