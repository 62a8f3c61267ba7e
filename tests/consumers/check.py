#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a project gets that uses the library: installed, or as a subproject; shared, or static."""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

HERE = pathlib.Path(__file__).parent
SOURCE = pathlib.Path(os.environ['BGLOOP_SOURCE_ROOT'])
BINDINGS = HERE.parent / 'bindings'
BUILD = pathlib.Path(os.environ['BGLOOP_BUILD_ROOT'])
MESON = [os.environ['BGLOOP_MESON']]
CC = shlex.split(os.environ['CC'])
CXX = shlex.split(os.environ['CXX'])
LANGUAGES = dict(language.split('=', 1) for language in os.environ['BGLOOP_LANGUAGES'].split())
PARTS = set(os.environ['BGLOOP_PARTS'].split())
PYTHON_DIR = os.environ['BGLOOP_PYTHON_DIR']
VERSION = os.environ['BGLOOP_VERSION']
WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Wundef', '-Wno-unused-parameter', '-Werror']
STANDARDS = [(CC, '-xc', '-std=c11'), (CXX, '-xc++', '-std=c++17'), (CXX, '-xc++', '-std=c++20')]

# gcc has no name for every warning.
EVERY_GCC = ['-Wcast-align', '-Wcast-qual', '-Wconversion', '-Wdouble-promotion', '-Wfloat-equal', '-Wformat=2',
             '-Wlogical-op', '-Wmissing-declarations', '-Wnull-dereference', '-Wpointer-arith', '-Wredundant-decls',
             '-Wshadow', '-Wsign-conversion', '-Wswitch-default', '-Wswitch-enum', '-Wundef', '-Wunused-macros',
             '-Wwrite-strings']
EVERY_GCC_IN = {
    '-xc': ['-Wbad-function-cast', '-Wc++-compat', '-Wdeclaration-after-statement', '-Wmissing-prototypes',
            '-Wold-style-definition', '-Wstrict-prototypes'],
    '-xc++': ['-Wcomma-subscript', '-Wctor-dtor-privacy', '-Wextra-semi', '-Wnon-virtual-dtor', '-Wold-style-cast',
              '-Woverloaded-virtual', '-Wredundant-tags', '-Wsign-promo', '-Wstrict-null-sentinel',
              '-Wsuggest-override', '-Wuseless-cast', '-Wzero-as-null-pointer-constant'],
}
# The comments are not Doxygen's; padding, older standards, inline vtables, names with an underscore and what
# g_autoptr() is made of are no faults.
EVERY_CLANG = ['-Weverything', '-Wno-c++98-compat', '-Wno-c++98-compat-pedantic', '-Wno-documentation',
               '-Wno-documentation-unknown-command', '-Wno-padded', '-Wno-pre-c++14-compat', '-Wno-pre-c++17-compat',
               '-Wno-pre-c++20-compat-pedantic', '-Wno-reserved-identifier', '-Wno-reserved-macro-identifier',
               '-Wno-unknown-warning-option', '-Wno-unsafe-buffer-usage', '-Wno-used-but-marked-unused',
               '-Wno-weak-vtables']


def run(*command, cwd=None, **variables):
    """Returns what it printed; what fails raises, with all that was printed."""
    environment = os.environ | variables
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise AssertionError(f'{shlex.join(map(str, command))}: {done.returncode}\n{done.stdout}')
    return done.stdout


class Consumer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix='bgloop-consumer-'))
        cls.addClassCleanup(shutil.rmtree, cls.scratch)


def expected_files():
    """What installed.txt lists, as patterns, for what this build has."""
    options = {option['name']: option['value']
               for option in json.loads(run(*MESON, 'introspect', '--buildoptions', BUILD))}
    _, minor, micro = VERSION.split('.')
    names = {name: str(pathlib.PurePath(options['prefix'], options[name]))
             for name in ('datadir', 'includedir', 'libdir', 'libexecdir', 'localedir')}
    names |= {'python_dir': PYTHON_DIR, 'version': VERSION, 'minor': minor, 'micro': micro}
    lines = (HERE / 'installed.txt').read_text().splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith('#')]
    return [pattern.format_map(names) for part, pattern in pairs if part in PARTS]


class Installed(Consumer):
    """What was built beside this test, as it is installed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        run(*MESON, 'install', '-C', BUILD, '--no-rebuild', '--destdir', cls.scratch)
        cls.files = {'/' + str(path.relative_to(cls.scratch)) for path in cls.scratch.rglob('*')
                     if path.is_symlink() or not path.is_dir()}
        pkg_config_file, = cls.scratch.rglob('bgloop-1.pc')
        text = pkg_config_file.read_text()
        prefix = re.search(r'^prefix=/(.*)', text, re.MULTILINE)[1]
        cls.prefix = cls.scratch / prefix
        cls.libdir = pkg_config_file.parents[1]
        # It was to be in another place.
        pkg_config_file.write_text(text.replace(f'=/{prefix}\n', f'={cls.prefix}\n'))

    def flags(self, *options):
        return shlex.split(run('pkg-config', *options, 'bgloop-1',
                               PKG_CONFIG_PATH=str(self.libdir / 'pkgconfig')))

    def compile(self, source, *options, compiler=CC):
        """Returns what the compiler said."""
        path = self.scratch / 'source'
        path.write_text(source)
        return run(*compiler, *options, *self.flags('--cflags'), path, cwd=self.scratch)

    def test_files(self):
        """What is installed, and where, is what installed.txt has, no more and no less."""
        expected = expected_files()
        missing = [pattern for pattern in expected if not fnmatch.filter(self.files, pattern)]
        self.assertEqual(missing, [], 'in installed.txt, and not installed')
        added = {file for file in self.files if not any(fnmatch.fnmatchcase(file, pattern) for pattern in expected)}
        self.assertEqual(added, set(), 'installed, and not in installed.txt')

    def test_version(self):
        self.assertEqual(self.flags('--modversion'), [VERSION])

    def build_and_run(self, compiler, source, *options):
        program = self.scratch / 'consumer'
        run(*compiler, source, *options, *WARNINGS, '-o', program, *self.flags('--cflags', '--libs'))
        said = run(program, LD_LIBRARY_PATH=str(self.libdir))
        self.assertEqual(said, f'consumer {VERSION}\n')

    def test_program(self):
        self.build_and_run(CC, HERE / 'parent' / 'consumer.c')

    @unittest.skipUnless(CXX, 'there is no C++ compiler')
    def test_program_in_cpp(self):
        self.build_and_run(CXX, HERE / 'parent' / 'consumer.cpp', '-std=c++17')

    @unittest.skipUnless(CXX, 'there is no C++ compiler')
    @unittest.skipUnless(shutil.which('cmake'), 'there is no cmake')
    def test_cmake(self):
        """CMake's module for pkg-config has it as a target."""
        project, build = self.scratch / 'cmake', self.scratch / 'cmake' / 'build'
        shutil.copytree(HERE / 'cmake', project)
        shutil.copy(HERE / 'parent' / 'consumer.c', project)
        shutil.copy(HERE / 'parent' / 'consumer.cpp', project)
        run('cmake', '-S', project, '-B', build, CC=shlex.join(CC), CXX=shlex.join(CXX),
            PKG_CONFIG_PATH=str(self.libdir / 'pkgconfig'))
        run('cmake', '--build', build)
        for program in 'consumer-c', 'consumer-cpp':
            said = run(build / program, LD_LIBRARY_PATH=str(self.libdir))
            self.assertEqual(said, f'consumer {VERSION}\n')

    def run_in(self, *command):
        said = run(*command, cwd=self.scratch, GI_TYPELIB_PATH=str(self.libdir / 'girepository-1.0'),
                   LD_LIBRARY_PATH=str(self.libdir))
        self.assertRegex(said, r'(?m)^ok ')
        self.assertNotRegex(said, r'(?m)^not ok ')

    @unittest.skipUnless('lua' in LANGUAGES, 'there is no Lua, or no typelib')
    def test_lua(self):
        self.run_in(LANGUAGES['lua'], BINDINGS / 'test_lua.lua')

    @unittest.skipUnless('gjs' in LANGUAGES, 'there is no GJS, or no typelib')
    def test_gjs(self):
        self.run_in(LANGUAGES['gjs'], BINDINGS / 'test_gjs.js')

    @unittest.skipUnless('vala' in LANGUAGES, 'there is no valac, or no vapi')
    def test_vala(self):
        """The vapi and the headers are all that a program in Vala needs."""
        data, = self.scratch.rglob('bgloop-1.vapi')
        program = self.scratch / 'test-vala'
        options = [f'--Xcc={flag}' for flag in self.flags('--cflags', '--libs')]
        said = run(LANGUAGES['vala'], '--pkg', 'bgloop-1', f'--vapidir={data.parent}', '-o', program, *options,
                   '--Xcc=-w', BINDINGS / 'test-vala.vala', cwd=self.scratch, CC=shlex.join(CC))
        self.assertNotIn('warning', said)
        self.run_in(program)

    def headers(self, pattern='*.h'):
        headers = sorted((self.prefix / 'include').rglob(pattern))
        self.assertGreater(len(headers), 5)
        return [f'bgloop/{header.name}' for header in headers]

    def every_warning(self, compiler, language):
        if 'clang' in run(*compiler, '--version'):
            every = EVERY_CLANG
        else:
            every = EVERY_GCC + EVERY_GCC_IN[language]
        # The headers of GLib are not ours to warn about.
        ours = f'-I{self.prefix}'
        glib = [flag for flag in self.flags('--cflags') if not flag.startswith(ours)]
        return WARNINGS + every + [flag.replace('-I', '-isystem', 1) for flag in glib]

    def test_headers_alone(self):
        """Each header has all that it needs, once and twice, and no compiler has anything to say."""
        for compiler, language, standard in STANDARDS:
            if not compiler:
                continue
            warnings = self.every_warning(compiler, language)
            for header in self.headers('*.h' if language == '-xc' else '*.h*'):
                with self.subTest(header, standard=standard):
                    source = f'#include <{header}>\n' * 2 + 'extern int used;\nint used;\n'
                    self.compile(source, language, '-c', standard, *warnings, compiler=compiler)
        self.assertIn('bgloop/bgloop.hpp', self.headers('*.h*'))

    def test_headers_define_their_own(self):
        """All that the headers define is a public name."""
        headers = self.headers()
        ours = self.defined_by(headers) - self.defined_by(['gio/gio.h'])
        text = ''.join((self.prefix / 'include' / 'bgloop-1' / header).read_text() for header in headers)
        documented = set(re.findall(r'^ \* (\w+):', text, re.MULTILINE))
        self.assertIn('BG_CHECK_VERSION', documented & ours)
        others = {name for name in ours - documented if not re.fullmatch(r'BG_TYPE_\w+|BG_ERROR', name)}
        self.assertEqual(others, {'_BG_EXTERN', 'BG_AVAILABLE_IN_1_0'})

    def defined_by(self, headers):
        said = self.compile(''.join(f'#include <{header}>\n' for header in headers), '-xc', '-E', '-dM')
        return set(re.findall(r'^#define (\w+)', said, re.MULTILINE))

    def test_max_allowed(self):
        """The compiler warns of what is newer than a program allows."""
        call = '#include <bgloop/bgloop.h>\nvoid f (void) { bg_loop_dup_current (); }\n'
        for version, warned in ('BG_VERSION_1_0', False), ('G_ENCODE_VERSION(0,8)', True):
            with self.subTest(version):
                said = self.compile(call, '-xc', '-c', f'-DBG_VERSION_MAX_ALLOWED=({version})')
                self.assertEqual('Not available before 1.0' in said, warned, said)


def set_up_repository(folder):
    """What a wrap file takes: a repository with a tag for each release."""
    for name in 'bgloop', 'docs', 'po':
        shutil.copytree(SOURCE / name, folder / name)
    for name in 'meson.build', 'meson_options.txt':
        shutil.copy(SOURCE / name, folder)
    git = ['git', '-C', folder, '-c', 'user.name=bgloop', '-c', 'user.email=bgloop']
    run(*git, 'init', '--quiet')
    run(*git, 'add', '--all')
    run(*git, 'commit', '--quiet', '--no-gpg-sign', '--message', VERSION)
    run(*git, 'tag', '--no-sign', VERSION)


class Subproject(Consumer):
    def setUp(self):
        self.parent = pathlib.Path(tempfile.mkdtemp(dir=self.scratch)) / 'parent'
        self.build = self.parent / 'build'
        shutil.copytree(HERE / 'parent', self.parent)
        (self.parent / 'subprojects').mkdir()
        (self.parent / 'subprojects' / 'bgloop').symlink_to(SOURCE)

    def configure(self, *options):
        return run(*MESON, 'setup', self.build, self.parent, '--prefix=/usr', '--libdir=lib',
                   '--default-library=shared', '--wrap-mode=forcefallback', *options)

    def introspect(self, what):
        return json.loads(run(*MESON, 'introspect', what, self.build))

    def installed(self):
        return set(self.introspect('--installed').values())

    def test_library_only(self):
        """Nothing but the library would be built, and nothing of it be installed."""
        said = self.configure()
        self.assertIn('bgloop is not installed', said)
        self.assertEqual(self.introspect('--tests'), [])
        targets = {target['name'] for target in self.introspect('--targets')}
        self.assertEqual(targets - {'consumer-cpp'}, {'bgloop-1', 'consumer', 'plugin', 'plugin-host'})

        self.assertEqual(self.installed(), {'/usr/bin/consumer'})

    @unittest.skipUnless(shutil.which('git'), 'there is no git')
    def test_fetched(self):
        """By the wrap file that the README shows, and used in C and in C++."""
        repository, fetched = self.parent.parent / 'repository', self.parent / 'subprojects' / 'bgloop'
        set_up_repository(repository)
        fetched.unlink()
        text = (SOURCE / 'README.md').read_text(encoding='utf-8')
        wrap = re.search(r'^```ini\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)[1]
        wrap, n = re.subn(r'(?m)^url = .*', f'url = {repository.as_uri()}', wrap)
        self.assertEqual(n, 1)
        fetched.with_name('bgloop.wrap').write_text(wrap, encoding='utf-8')
        self.configure()
        self.assertTrue((fetched / 'bgloop' / 'bg-loop.c').is_file())
        run(*MESON, 'compile', '-C', self.build)
        for program in ['consumer', *(['consumer-cpp'] if CXX else [])]:
            self.assertEqual(run(self.build / program), f'consumer {VERSION}\n')

    def test_static(self):
        """As docs/building.md shows it: a program has it in itself, and a module that has it is never unloaded."""
        line, static = re.findall(r'^```meson\n(.*?)^```$', (SOURCE / 'docs' / 'building.md').read_text(encoding='utf-8'),
                                  re.DOTALL | re.MULTILINE)
        file = self.parent / 'meson.build'
        self.assertIn(line, file.read_text(encoding='utf-8'))
        file.write_text(file.read_text(encoding='utf-8').replace(line, static), encoding='utf-8')
        said = self.configure()
        self.assertNotIn('bgloop is not installed', said)
        stage = self.parent / 'stage'
        run(*MESON, 'install', '-C', self.build, '--destdir', stage)
        self.assertEqual([path for path in stage.rglob('*') if not path.is_dir()],
                         [stage / 'usr' / 'bin' / 'consumer'])
        self.assertEqual(run(stage / 'usr' / 'bin' / 'consumer'), f'consumer {VERSION}\n')
        self.assertEqual(run(self.build / 'plugin-host', self.build / 'plugin.so'), 'used twice\n')

    def test_asked_for(self):
        self.configure('-Dbgloop:install=enabled', '-Dbgloop:tests=enabled', '-Dbgloop:examples=enabled')
        tests = {test['name'] for test in self.introspect('--tests')}
        self.assertLess({'call', 'post', 'files', 'testing-glib'}, tests)
        self.assertLess({'/usr/bin/consumer', '/usr/include/bgloop-1/bgloop/bgloop.h',
                         '/usr/lib/pkgconfig/bgloop-1.pc'}, self.installed())


if __name__ == '__main__':
    unittest.main(verbosity=2)
