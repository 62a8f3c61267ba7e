#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""Plants the faults of planted/, one after the other, and says how many seeds the random test needs
to find each.

Each patch is applied to a scratch copy, of which only the library and the random test are built. A
seed that fails without the fault, too, now and then or on a busy machine, is not counted."""

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
OPTIONS = ['-Dintrospection=disabled', '-Dvapi=disabled', '-Dexamples=disabled', '-Dpython=disabled']
MODEL = 'tests/model/model'
LIBRARY = 'bgloop/libbgloop-1.so.0'
TRIES = 20


def run(*command, cwd, check=True):
    return subprocess.run(command, cwd=cwd, check=check, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def applies(patch):
    return run('git', 'apply', '--check', patch, cwd=ROOT, check=False).returncode == 0


def copy_tree(scratch):
    for name in run('git', 'ls-files', '-z', cwd=ROOT).stdout.split('\0')[:-1]:
        if (ROOT / name).exists():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, scratch / name)
    run('meson', 'setup', 'build', *OPTIONS, cwd=scratch)
    run('ninja', '-j2', '-C', 'build', MODEL, cwd=scratch)
    for name in [MODEL, LIBRARY]:  # found from the program
        (scratch / 'sound' / name).parent.mkdir(parents=True)
        shutil.copy(scratch / 'build' / name, scratch / 'sound' / name)


def run_model(scratch, build, args, *more, seconds):
    """What the random test says until it has found something, or the time is over."""
    command = [f'{build}/{MODEL}', f'--patience={args.patience}', *more]
    try:
        model = subprocess.run(command, cwd=scratch, timeout=seconds, text=True, check=False,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return model.stdout
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b'').decode()


def find(scratch, args):
    """The first seed that fails with the fault and not without, and what is said then."""
    first, end = args.first, time.monotonic() + args.seconds
    while first < args.first + args.seeds and time.monotonic() < end:
        said = run_model(scratch, 'build', args, '--failures=1', f'--first={first}',
                         f'--seeds={args.first + args.seeds - first}', seconds=end - time.monotonic())
        failed = re.findall(r'^seed (\d+) failed', said, re.M)
        if not failed:
            break
        seed = min(map(int, failed))
        without = run_model(scratch, 'sound', args, f'--seed={seed}', f'--tries={TRIES}', seconds=args.seconds)
        if f'{TRIES} passed' in without:
            return seed, said
        first = seed + 1
    return None, ''


def try_patch(scratch, patch, args):
    """How many seeds it took, None if all passed, or a word that says what went wrong."""
    if run('git', 'apply', patch, cwd=scratch, check=False).returncode != 0:
        return 'does not apply'
    try:
        if run('ninja', '-j2', '-C', 'build', MODEL, cwd=scratch, check=False).returncode != 0:
            return 'does not build'
        seed, said = find(scratch, args)
        if args.verbose and seed:
            print('\n'.join(line[:200] for line in said.splitlines()[:6]), flush=True)
        return seed - args.first + 1 if seed else None
    finally:
        run('git', 'apply', '--reverse', patch, cwd=scratch)


def check(patches):
    stale = [patch for patch in patches if not applies(patch)]
    for patch in stale:
        print(f'{patch.stem} does not apply')
    print(f'{len(patches) - len(stale)} of {len(patches)} apply')
    return 1 if stale else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('patches', nargs='*', type=pathlib.Path, help='these, instead of planted/')
    parser.add_argument('--check', action='store_true', help='only say which do not apply')
    parser.add_argument('--seeds', type=int, default=20000)
    parser.add_argument('--first', type=int, default=1)
    parser.add_argument('--seconds', type=int, default=200, help='for each, at most')
    parser.add_argument('--patience', type=int, default=5, help='seconds until a scenario hangs')
    parser.add_argument('--verbose', action='store_true', help='how each was found')
    args = parser.parse_args()
    patches = [patch.resolve() for patch in args.patches]
    patches = patches or sorted((HERE / 'planted').glob('*.patch'))
    if args.check:
        return check(patches)

    n_found = n_tried = 0
    with tempfile.TemporaryDirectory(prefix='bgloop-planted-') as folder:
        scratch = pathlib.Path(folder)
        copy_tree(scratch)
        for patch in patches:
            begin = time.monotonic()
            seeds = try_patch(scratch, patch, args)
            n_tried += not isinstance(seeds, str)
            n_found += isinstance(seeds, int)
            what = 'not found' if seeds is None else seeds
            print(f'{patch.stem:45} {what:>15} {time.monotonic() - begin:6.0f} s', flush=True)
    print(f'{n_found} of {n_tried} found within {args.seeds} seeds')
    return 0 if n_tried == len(patches) else 1


sys.exit(main())
