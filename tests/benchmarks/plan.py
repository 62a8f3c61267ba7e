# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured, of whom, and what it is to come to."""

# What all others are compared with.
BASE = 'glib'

SYSTEMS = {
    'bgloop': ['bench-bgloop'],
    'glib': ['bench-glib'],
    'glib-invoke': ['bench-glib', '--variant', 'invoke'],
    'uv': ['bench-uv'],
    'asio': ['bench-asio'],
    'qt': ['bench-qt'],
    'pulse': ['bench-pulse'],
    'pipewire': ['bench-pipewire'],
    'tokio': ['bench-tokio'],
    'asyncio': ['bench_asyncio.py'],
    'asyncio-coroutine': ['bench_asyncio.py', '--variant', 'coroutine'],
    'bare': ['bench-bare'],
    'bare-spin': ['bench-bare', '--variant', 'spin'],
}

# Who spins without end needs a processor for each thread.
ONLY = {
    'glib-invoke': ['W3-1', 'W3-64'],
    'bare-spin': ['W1-1', 'W2', 'W3-1', 'W3-64'],
}

WORKLOADS = {
    'W1-1': ['W1'],
    'W1-2': ['W1', '--producers', '2'],
    'W1-4': ['W1', '--producers', '4'],
    'W1s': ['W1s'],
    'W2': ['W2'],
    'W2s': ['W2s'],
    'W2x4': ['W2', '--producers', '4'],
    'W2c': ['W2', '--cpus', '1'],
    'W2c-busy1': ['W2', '--busy', '1'],
    'W2c-busy2': ['W2', '--busy', '2'],
    'W3-1': ['W3'],
    'W3-64': ['W3', '--depth', '64'],
    'W4': ['W4'],
    'W5': ['W5'],
    'W6': ['W6'],
    'W7': ['W7'],
    'W8': ['W8'],
    'W9': ['W9', '--variant', 'direct'],
    'W9-task': ['W9'],
}

TITLES = {
    'W1-1': 'W1 posts, 1 producer',
    'W1-2': 'W1 posts, 2 producers',
    'W1-4': 'W1 posts, 4 producers',
    'W1s': 'W1s posts 100 µs apart',
    'W2': 'W2 blocking calls',
    'W2s': 'W2s blocking calls 1 ms apart',
    'W2x4': 'W2x4 blocking calls, 4 callers',
    'W2c': 'W2c blocking calls, one processor',
    'W2c-busy1': 'W2c beside one busy process',
    'W2c-busy2': 'W2c beside two busy processes',
    'W3-1': 'W3 replies, one at a time',
    'W3-64': 'W3 replies, 64 at a time',
    'W4': 'W4 a loop’s life',
    'W5': 'W5 100 idle loops',
    'W6': 'W6 100,000 delayed posts',
    'W7': 'W7 latency in a flood',
    'W8': 'W8 a million queued posts',
    'W9': 'W9 operations that are done at once',
    'W9-task': 'W9 the same, answered by a GTask',
}

# What has a chart, and its title.
CHARTS_OF = {
    'W1-1': 'Posts from one thread (W1)',
    'W2': 'Blocking calls, one after the other (W2)',
    'W3-1': 'Calls with a reply, one at a time (W3)',
    'W3-64': 'Calls with a reply, 64 under way (W3)',
    'W4': 'Lives of a loop: start, one call, shutdown (W4)',
    'W6': 'Delayed posts, 100,000 of them (W6)',
}

# (kind, workload, figure, wanted): "times" plain GLib, "even" with it, at "most" so much, or at
# most so many times what another system needs.
GOALS = [
    ('times', 'W1-1', 'ns', 40),
    ('times', 'W1-2', 'ns', 40),
    ('times', 'W1-4', 'ns', 40),
    ('bare', 'W1-1', 'ns', 3),
    ('bare', 'W1-2', 'ns', 3),
    ('bare', 'W1-4', 'ns', 3),
    ('even', 'W1s', 'p50_ns', 1),
    ('even', 'W1s', 'cpu_ns', 1),
    ('times', 'W2', 'ns', 40),
    ('times', 'W2', 'cpu_ns', 10),
    ('bare-spin', 'W2', 'ns', 2.5),
    ('even', 'W2s', 'p50_ns', 1),
    ('even', 'W2s', 'p99_ns', 1),
    ('times', 'W2x4', 'ns', 10),
    ('times', 'W2c', 'ns', 1.5),
    ('times', 'W2c-busy1', 'ns', 0.9),
    ('times', 'W2c-busy1', 'cpu_ns', 0.87),
    ('times', 'W2c-busy2', 'ns', 0.9),
    ('times', 'W2c-busy2', 'cpu_ns', 0.87),
    ('times', 'W3-1', 'ns', 10),
    ('times', 'W3-64', 'ns', 6),
    ('even', 'W4', 'ns', 1),
    ('bare', 'W4', 'ns', 2),
    ('most', 'W5', 'wakeups', 0),
    ('even', 'W5', 'bytes', 1),
    ('times', 'W6', 'ns', 15),
    ('even', 'W6', 'p99_ns', 1),
    ('most', 'W6', 'early', 0),
    ('most', 'W7', 'post_p99_ns', 50000),
    ('most', 'W7', 'timer_p99_ns', 50000),
    ('most', 'W7', 'socket_p99_ns', 50000),
    ('times', 'W8', 'bytes', 4),
    ('times', 'W9', 'ns', 20),
]

# What the short form looks at: figures that hold still. (W6 does not: plain GLib needs 3 or 18 µs for
# a timeout, by whether its loop runs while they are added.)
SHORT = [
    ('W1-1', 'ns'),
    ('W1-4', 'ns'),
    ('W2', 'ns'),
    ('W2', 'cpu_ns'),
    ('W2x4', 'ns'),
    ('W3-1', 'ns'),
    ('W3-64', 'ns'),
    ('W4', 'ns'),
    ('W8', 'bytes'),
    ('W9', 'ns'),
]

# What bounds a figure of the short form on a machine: another system, and the workload to look at.
# Where two processors talk more slowly to each other the bound is lower, and so is the figure.
BOUNDS = {
    'W1-1': ('bare', 'W1-1'),
    'W1-4': ('bare', 'W1-4'),
    'W2': ('bare-spin', 'W2'),
    'W3-1': ('bare-spin', 'W3-1'),
    'W4': ('bare', 'W4'),
    'W9': ('bare-spin', 'W2'),
}

MEMBERS = ['bgloop', 'glib', 'uv', 'asio', 'qt', 'bare']

# title, arguments, points, systems
CURVES = {
    'queued': ('Cost of a post, by how many are queued', ['queued', '--count', '{point}'],
               [1, 10, 100, 1000, 10000, 100000, 1000000, 10000000],
               ['bgloop', 'glib', 'uv', 'asio', 'bare']),
    'producers': ('Cost of a post, by the number of threads that post',
                  ['W1', '--producers', '{point}', '--count', '{share}'],
                  [1, 2, 4, 8, 16, 32, 64], MEMBERS),
    'loops': ('Cost of a post, by the number of loops that are posted to',
              ['loops', '--loops', '{point}'], [1, 2, 5, 10, 20, 50, 100, 200], MEMBERS),
}
