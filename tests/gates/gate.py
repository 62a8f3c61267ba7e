#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""gate.py NAME PROGRAM ROOT BUILD_DIR [OPTIONAL...]: that a tool finds nothing in the project's files but what
is named in the file `exceptions` beside this one, with the reason; that all of it is found; and a planted fault,
too. What the library is compiled from with other options only is OPTIONAL, as is -I for what it includes.

gate.py NAME --skip REASON: says that the tool is not run, and why not."""

import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

PLACE = r'^(?P<path>[^\s:]+):\d+:(?:\d+:)? '
PROBLEM = PLACE + r'(?P<text>(?:error|warning|performance|portability): .*)'
WHATEVER = PLACE + r'(?P<text>.*)'

# Each of these evaluates one of its arguments twice: no call belongs in it.
TWICE = r'\b(MIN|MAX|CLAMP|ABS) \(.*[a-z_] \('

# What bgloop.hpp, which nothing of the library includes, is compiled with: this uses each of its templates.
HEADER_TEST = 'tests/cpp/test-cpp-input17'

# What meson_options.txt leaves out unless it is asked for.
SWITCHES = ['BG_LOCK_CHECKS', 'HAVE_SYSPROF']

# cppcheck has a file about GTK, in which these macros are not.
MACROS = ['BG_AVAILABLE_IN_1_0=', 'G_DEFINE_ENUM_TYPE(...)=', 'G_GNUC_FORMAT(n)=', 'G_GNUC_PRINTF(n,m)=']


@dataclasses.dataclass
class Gate:
    """Files is what git may list them by; without it they are what the library is compiled from, and bgloop.hpp if
    the tool understands C++."""
    arguments: list
    planted: str
    suffix: str = '.c'
    files: list = None
    finding: str = PROBLEM
    fine: tuple = (0,)  # exit statuses where nothing is found
    cpp: bool = False


GATES = {
    'clang-format': Gate(
        ['--dry-run', '-Werror', '--style=file:{root}/.clang-format'],
        'int  planted;\n',
        files=['*.c', '*.cc', '*.cpp', '*.h', '*.hpp'],
    ),
    'clang-tidy': Gate(
        ['--quiet', '--checks=-*,bugprone-*,cert-*,concurrency-*', '--header-filter=/bgloop/'],
        '#include <stdlib.h>\n\nint planted (const char *text)\n{\n  return atoi (text);\n}\n',
        cpp=True,
    ),
    'codespell': Gate(
        [],
        't' 'eh loop\n',
        suffix='.txt',
        files=['.', ':!*.po', ':!*.zh_CN.md'],
        finding=WHATEVER,
    ),
    'cppcheck': Gate(
        ['--quiet', '--enable=warning,performance,portability', '--library=gtk', '--library=posix',
         '--template={{file}}:{{line}}:{{column}}: {{severity}}: {{message}} [{{id}}]'],
        'int planted (int *n)\n{\n  return n == 0 ? *n : 0;\n}\n',
        cpp=True,
    ),
    # In a member function of C++ version 12 does not find this fault.
    'gcc-analyzer': Gate(
        ['-fanalyzer', '-fdiagnostics-plain-output', '-fdiagnostics-path-format=none', '-S'],
        '#include <stdlib.h>\n\nvoid planted (void *p)\n{\n  free (p);\n  free (p);\n}\n',
    ),
    'macros': Gate(
        ['--line-number', '--with-filename', '--perl-regexp', TWICE],
        'int n = MAX (planted (), 1);\n',
        files=['*.c', '*.h', '*.hpp', '*.cc', '*.cpp'],
        finding=r'^(?P<path>[^\s:]+):\d+:(?P<text>.*)',
        fine=(1,),
    ),
    'pyflakes': Gate([], 'import os\n', suffix='.py', files=['*.py'], finding=WHATEVER),
    'shellcheck': Gate(
        ['--format=gcc'],
        '#!/bin/sh\nrm $1\n',
        suffix='.sh',
        files=['*.sh', 'dev', '.ci/run'],
        finding=WHATEVER,
    ),
}


def list_tracked(root, patterns):
    """What git knows of; whoever the folder belongs to."""
    text = subprocess.run(['git', '-C', root, '-c', 'safe.directory=*', 'ls-files', '-z', '--', *patterns],
                          check=True, capture_output=True, text=True).stdout
    return [os.path.join(root, name) for name in text.split('\0') if name]


def list_compiled(build, output):
    """What is compiled into files whose names begin so, and the options by which that is understood."""
    with open(os.path.join(build, 'compile_commands.json'), encoding='utf-8') as file:
        entries = [entry for entry in json.load(file) if entry['output'].startswith(output)]
    options = []
    for option in shlex.split(entries[0]['command']) if entries else []:
        if option.startswith('-I'):
            options.append('-I' + os.path.normpath(os.path.join(build, option[2:])))
        elif re.match('-D|-std=|-pthread', option):
            options.append(option)
    return [os.path.normpath(os.path.join(build, entry['file'])) for entry in entries], options


def get_command(name, program, root, options, files):
    arguments = [argument.format(root=root) for argument in GATES[name].arguments]
    if name == 'clang-tidy':
        return [program, *arguments, *files, '--', *options]
    if name == 'cppcheck':
        standard = '--std=c++17' if '-std=c++17' in options else '--std=c11'
        options = [option for option in options if not re.match('-I/usr|-std=|-pthread', option)]
        options += [standard, *('-D' + macro for macro in MACROS)]
    return [program, *arguments, *options, *files]


def switch_on(build, folder):
    """Puts a config.h into the folder that has everything optional."""
    text = pathlib.Path(build, 'bgloop/config.h').read_text(encoding='utf-8')
    for switch in SWITCHES:
        text, n = re.subn(rf'^#define {switch} [01]$', f'#define {switch} 1', text, flags=re.M)
        if n != 1:
            sys.exit(f'Bail out! There is no {switch} in config.h')
    pathlib.Path(folder, 'config.h').write_text(text, encoding='utf-8')


def find(name, command, root):
    """What the tool says of which file, or that it did not work."""
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = {}
    for match in re.finditer(GATES[name].finding, process.stdout, re.MULTILINE):
        path = os.path.relpath(match['path'], root)
        found[match[0].replace(match['path'], path, 1)] = path, match['text']
    if process.returncode not in GATES[name].fine and not found:
        found[f'exit status {process.returncode}: {process.stdout}'] = '', ''
    return found


def find_planted(name, program, root, options, planted):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'planted' + GATES[name].suffix)
        pathlib.Path(path).write_text(planted, encoding='utf-8')
        found = find(name, get_command(name, program, root, options, [path]), root)
    return [path for path, text in found.values() if path]


def find_in_header(name, program, root, build):
    """What is found in a test of bgloop.hpp, and in that; and in a fault that is planted in another header."""
    files, options = list_compiled(build, HEADER_TEST)
    if not files:
        return files, {}, []
    found = find(name, get_command(name, program, root, options, files), root)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, 'bgloop', 'planted.hpp')
        path.parent.mkdir()
        path.write_text(GATES[name].planted, encoding='utf-8')
        test = pathlib.Path(folder, 'planted.cpp')
        test.write_text('#include "bgloop/planted.hpp"\n', encoding='utf-8')
        planted = find(name, get_command(name, program, root, options, [str(test)]), root)
        return files, found, [place for place, text in planted.values() if place.endswith(path.name)]


def find_optional(name, program, root, build, options, optional):
    """What is found in files that are compiled with other options only; and in a planted fault that is."""
    files = [path for path in optional if not path.startswith('-')]
    conditions = ' && '.join(SWITCHES)
    planted = f'#include "config.h"\n#if {conditions}\n{GATES[name].planted}#endif\n'
    with tempfile.TemporaryDirectory() as folder:
        switch_on(build, folder)
        options = ['-I' + folder, *options, *(path for path in optional if path.startswith('-'))]
        found = find(name, get_command(name, program, root, options, files), root)
        return files, found, find_planted(name, program, root, options, planted)


def read_exceptions(name):
    """A gate's: a pattern of files, and what is said of them."""
    text = pathlib.Path(__file__).with_name('exceptions').read_text(encoding='utf-8')
    lines = [line for line in text.splitlines() if not line.startswith('#')]
    for line, after in zip(lines, [*lines[1:], '']):
        if not line or line.startswith(' '):
            continue
        gate, path, text = line.split(maxsplit=2)
        if gate not in GATES or not after.startswith(' '):
            sys.exit(f'Bail out! Without a gate, or a reason: {line}')
        if gate == name:
            yield path, text


def report(number, faults, what):
    print('not ok' if faults else 'ok', number, '-', what)
    for fault in faults:
        for line in fault.splitlines():
            print('#', line)


def main():
    if sys.argv[2] == '--skip':
        print('1..0 # SKIP', sys.argv[3])
        return 0

    name, program, root, build, *optional = sys.argv[1:]
    gate, options, header = GATES[name], [], None
    if gate.files:
        files, optional = list_tracked(root, gate.files), []
    else:
        files, options = list_compiled(build, 'bgloop/')
        optional = [path if path.startswith('-') else os.path.normpath(path) for path in optional]
        optional = [path for path in optional if path not in files]
    found = find(name, get_command(name, program, root, options, files), root)
    missed = [] if files and find_planted(name, program, root, options, gate.planted) else ['nothing is found']
    if any(not path.startswith('-') for path in optional):
        more, found_more, planted = find_optional(name, program, root, build, options, optional)
        files, found = files + more, found | found_more
        missed += [] if planted else ['nothing is found in what is optional']
    if gate.cpp:
        header, found_more, planted = find_in_header(name, program, root, build)
        files, found = files + header, found | found_more
        missed += [] if planted or not header else ['nothing is found in a header of C++']

    exceptions = set(read_exceptions(name))
    needed, faults = set(), []
    for line, (path, text) in found.items():
        excepted = {exception for exception in exceptions
                    if fnmatch.fnmatch(path, exception[0]) and exception[1] in text}
        needed |= excepted
        if not excepted:
            faults.append(line)

    print('1..4' if header == [] else '1..3')
    report(1, faults, f'nothing is found in {len(files)} files')
    report(2, [' '.join(exception) for exception in sorted(exceptions - needed)], 'each exception is needed')
    report(3, missed, 'a planted fault is found')
    if header == []:
        print('ok 4 - bgloop.hpp # SKIP there is no C++ compiler')
    return 1 if faults or exceptions - needed or missed else 0


sys.exit(main())
