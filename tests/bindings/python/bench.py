#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How many functions a second a loop runs for Python, beside asyncio in a thread and ThreadPoolExecutor(1).

All take turns, in rounds, so that what else the machine does falls on all of them. The ratios are those of
the best rounds; the promised ones are beside them.
"""

import argparse
import asyncio
import concurrent.futures
import json
import sys
import threading
import time

import bgloop


def work():
    pass


async def coroutine():
    pass


class Asyncio:
    name = 'asyncio in a thread'

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def submit(self):
        return asyncio.run_coroutine_threadsafe(coroutine(), self.loop)

    def call(self):
        return self.submit().result()

    run = call

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Pool:
    name = 'ThreadPoolExecutor(1)'

    def __init__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(1)

    def submit(self):
        return self.pool.submit(work)

    def call(self):
        return self.pool.submit(work).result()

    run = None

    def close(self):
        self.pool.shutdown()


class Loop:
    name = 'bgloop'

    def __init__(self):
        self.loop = bgloop.Loop('benchmark')

    def submit(self):
        return self.loop.submit(work)

    def call(self):
        return self.loop.call(work)

    def run(self):
        return self.loop.run(coroutine())

    def close(self):
        self.loop.shutdown()


def call(peer, n):
    for _ in range(n):
        peer.call()


def submit(peer, n):
    for _ in range(n):
        peer.submit().result()


def batch(peer, n):
    for future in [peer.submit() for _ in range(n)]:
        future.result()


def run(peer, n):
    for _ in range(n):
        peer.run()


WORKLOADS = {'call': call, 'submit, result': submit, 'submit a batch': batch, 'run a coroutine': run}
PROMISED = {
    ('call', Asyncio): 3,
    ('submit, result', Asyncio): 2,
    ('submit a batch', Asyncio): 2,
    ('submit, result', Pool): 1,
    ('submit a batch', Pool): 1,
}


def measure(peers, rounds, n):
    best = {}
    for _ in range(rounds):
        for name, workload in WORKLOADS.items():
            for peer in peers:
                if name == 'run a coroutine' and peer.run is None:
                    continue
                begun = time.perf_counter()
                workload(peer, n)
                usec = (time.perf_counter() - begun) / n * 1e6
                key = name, type(peer)
                best[key] = min(best.get(key, usec), usec)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('-n', type=int, default=4000, help='pieces of work in a round')
    parser.add_argument('--json', action='store_true', help='what was measured, and nothing else')
    arguments = parser.parse_args()

    peers = [Loop(), Asyncio(), Pool()]
    try:
        best = measure(peers, arguments.rounds, arguments.n)
    finally:
        for peer in peers:
            peer.close()

    ratios = {key: best[key] / best[key[0], Loop] for key in best if key[1] is not Loop}
    if arguments.json:
        print(json.dumps({'usec': {f'{name}: {kind.name}': usec for (name, kind), usec in best.items()},
                          'times': {f'{name}: {kind.name}': ratio for (name, kind), ratio in ratios.items()}}))
        return 0

    print(f'{"µs each":16}' + ''.join(f'{type(peer).name:>24}' for peer in peers))
    for name in WORKLOADS:
        print(f'{name:16}' + ''.join(f'{best[name, type(peer)]:24.1f}' if (name, type(peer)) in best else ' ' * 24
                                     for peer in peers))
    print()
    missed = 0
    for (name, kind), ratio in ratios.items():
        promised = PROMISED.get((name, kind))
        missed += promised is not None and ratio < promised
        print(f'{name}: {ratio:.1f} times {kind.name}' + (f', {promised} promised' if promised else ''))
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
