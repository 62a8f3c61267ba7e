#!/usr/bin/python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later

"""Checks that the folders of the library are rows: a file includes its own folder and those below.

Public headers say what people call things, so that all rows but the lowest two may include them; to
call what they declare is for the top and for the test kit. What a core has, and what an inbox has, is
named in its own row only: the others ask its functions."""

import pathlib
import re
import sys

BELOW = {
    'base': ['base'],
    'inbox': ['inbox', 'base'],
    'core': ['core', 'inbox', 'base', 'public'],
    'testing': ['testing', 'core', 'inbox', 'base', 'public'],
    'top': ['top', 'core', 'inbox', 'base', 'public', 'testing'],
    'public': ['public'],
}

# Where the fields of a type are named, and other ways to one than a variable of the type.
OWNERS = {
    'BgCore': ('core', r'\w+(?:->|\.)core|bg_\w+_core \([^()]*\)'),
    'BgInbox': ('inbox', r'(?:\w+(?:->|\.))?inbox|bg_\w+_inbox \([^()]*\)'),
}


def get_row(path):
    """The row of a file that is named from the library's folder."""
    if len(path.parts) > 1:
        return path.parts[0]
    return 'public' if path.suffix != '.c' and 'private' not in path.name else 'top'


def strip(text):
    text = re.sub(r'/\*.*?\*/', '', text, flags=re.S)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def check(path, text):
    """What is wrong with a file, a line each."""
    row = get_row(path)
    for quote, folder, name in re.findall(r'#\s*include\s*([<"])(bgloop/)?([^>"]+)[>"]', text):
        if quote == '"':
            if name != 'config.h':
                yield f'{path} includes {name} in quotes'
        elif folder and get_row(pathlib.PurePath(name)) not in BELOW[row]:
            yield f'{path} includes {name}'
        elif not folder and get_row(pathlib.PurePath(name)) in BELOW and '/' in name:
            yield f'{path} includes {name} without bgloop/'

    code = strip(text)
    if row == 'core':
        for name in re.findall(r'\b(bg_(?:loop|test)_\w+) \(', code):
            if not name.endswith('_get_type'):
                yield f'{path} calls {name}()'
    for kind, (owner, way) in OWNERS.items():
        if row != owner:
            names = set(re.findall(rf'\b{kind} \*+(\w+)|\({kind}\) (\w+)', code))
            ways = '|'.join([way, *(first or second for first, second in names)])
            way = rf'(?:\b(?:{ways})(?:\[[^]]*\])?|(?<!\w )\((?:{ways})\))'
            for name in re.findall(rf'{way}(?:->|\.)(\w+)', code):
                yield f'{path} names {name} of a {kind}'


PLANTED = {
    'base/bg-spin.c': '#include <bgloop/inbox/bg-inbox-private.h>\n',
    'inbox/bg-lane.c': '#include <bgloop/bg-loop.h>\n',
    'core/bg-core.c': '#include <bgloop/bg-loop-private.h>\n',
    'core/bg-reply.c': 'name = bg_loop_get_name (loop);\n',
    'bg-loop-call.c': 'self->core->name = NULL;\n',
    'bg-loop-post.c': 'inbox->posted++;\n',
    'core/bg-wait.c': 'self->inbox.paused = TRUE;\n',
    'core/bg-mailbox.c': 'BgInbox *other;\nother->asleep = TRUE;\n',
    'testing/bg-test-step.c': 'BgCore *self;\nself->pause.step = NULL;\n',
    'testing/bg-test-list.c': '#include <bgloop/bg-loop-private.h>\n',
    'bg-loop.h': '#include <bgloop/core/bg-core-private.h>\n',
    'bg-version.h.in': '# include <bgloop/base/bg-spin-private.h>\n',
    'bgloop.hpp': '#include <bgloop/bg-loop-private.h>\n',
    'base/bg-fork.c': '#include "../core/bg-core-private.h"\n',
    'base/bg-text.c': '#include <inbox/bg-inbox-private.h>\n',
    'bg-loop-flush.c': 'bg_core_get_inbox (core)->posted++;\n',
    'bg-loop-info.c': 'record.core->name = NULL;\n',
    'bg-loop-task.c': 'BgCore **cores;\ncores[0]->name = NULL;\n',
    'bg-stats.c': 'BgCore *core;\n(core)->name = NULL;\n',
    'bg-loop-attach.c': 'g_autoptr (BgCore) held = NULL;\nheld->name = NULL;\n',
}


def main():
    root = pathlib.Path(sys.argv[1])
    files = sorted([*root.glob('*.[ch]'), *root.glob('*.hpp'), *root.glob('*.h.in'), *root.glob('[a-z]*/*.[ch]')])
    files = [path for path in files if get_row(path.relative_to(root)) in BELOW]
    faults = [fault for path in files for fault in check(path.relative_to(root), path.read_text())]
    print('1..2')
    for fault in faults:
        print('#', fault)
    print('not ok' if faults or len(files) < 40 else 'ok', '1 rows')

    missed = [name for name, text in PLANTED.items() if not list(check(pathlib.PurePath(name), text))]
    for name in missed:
        print('# not found in', name)
    print('not ok' if missed else 'ok', '2 planted faults are found')
    return 1 if faults or missed else 0


sys.exit(main())
