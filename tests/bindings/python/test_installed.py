# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed, from where it is installed: both doors, the plugin, the stubs, and nothing else."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from util import HANG

BUILD_DIR = os.environ['BGLOOP_BUILD_DIR']
MESON = os.environ['BGLOOP_MESON'].split()

PROGRAM = '''
import importlib.metadata, os, sys
root = sys.argv[1]
import gi
gi.require_version('Bg', '1.0')
from gi.repository import Bg
import bgloop, bgloop.testing
assert bgloop.Loop is Bg.Loop
for module in bgloop, sys.modules['gi.overrides.Bg'], sys.modules['_bgloop']:
    assert module.__file__.startswith(root), module.__file__
distribution = importlib.metadata.distribution('bgloop')
assert [each.name for each in distribution.entry_points] == ['bgloop']
print(distribution.version)
with bgloop.Loop('installed') as loop:
    print(loop.call(pow, 2, 5))
'''


class Installed(unittest.TestCase):
    def test_both_doors(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*MESON, 'install', '-C', BUILD_DIR, '--no-rebuild', '--quiet', '--destdir', folder],
                           check=True, timeout=HANG, capture_output=True)
            installed = json.loads(subprocess.run([*MESON, 'introspect', BUILD_DIR, '--installed'], check=True,
                                                  timeout=HANG, capture_output=True, text=True).stdout)
            # As the destination of all of it is another one, the loader and the typelib are told where.
            targets = [folder + os.path.abspath(path) for path in installed.values()]
            libraries = {os.path.dirname(path) for path in targets if '/libbgloop' in path}
            typelibs = {os.path.dirname(path) for path in targets if path.endswith('.typelib')}
            packages = pathlib.Path(next(path for path in targets if path.endswith('gi/overrides/Bg.py'))).parents[2]
            environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
            environment.update(LD_LIBRARY_PATH=':'.join(libraries), GI_TYPELIB_PATH=':'.join(typelibs),
                               PYTHONPATH=str(packages))
            process = subprocess.run([sys.executable, '-c', PROGRAM, folder], env=environment, cwd=folder,
                                     timeout=HANG, capture_output=True, text=True)
            self.assertEqual((process.returncode, process.stderr), (0, ''), process.stderr)
            self.assertEqual(process.stdout.splitlines(), [os.environ['BGLOOP_VERSION'], '32'])

            files = {str(path.relative_to(packages)) for path in packages.rglob('*') if path.is_file()}
            source = pathlib.Path(os.environ['BGLOOP_SOURCE_DIR'])
            expected = {str(path.relative_to(source)) for name in ('_bgloop', 'bgloop')
                        for path in (source / name).iterdir() if path.is_file()}
            info = f'bgloop-{os.environ["BGLOOP_VERSION"]}.dist-info'
            expected |= {'_bgloop_config.py', 'gi/overrides/Bg.py', f'{info}/METADATA', f'{info}/entry_points.txt'}
            self.assertEqual(files, expected)
