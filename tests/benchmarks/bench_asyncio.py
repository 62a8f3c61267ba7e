#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Python's asyncio on a daemon thread, the pattern that this library replaces, with the workloads
of bench.c as far as they apply. By call_soon_threadsafe(), or, with --variant coroutine, by
run_coroutine_threadsafe()."""

import argparse
import asyncio
import concurrent.futures
import json
import os
import resource
import subprocess
import sys
import threading
import time

NSEC_PER_SEC = 1_000_000_000


class Loop:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def post(self, func, *arguments):
        self.loop.call_soon_threadsafe(func, *arguments)

    def call(self, func, *arguments):
        future = concurrent.futures.Future()
        self.post(lambda: future.set_result(func(*arguments)))
        return future.result()


class CoroutineLoop(Loop):
    def post(self, func, *arguments):
        asyncio.run_coroutine_threadsafe(wrap(func, arguments), self.loop)

    def call(self, func, *arguments):
        return asyncio.run_coroutine_threadsafe(wrap(func, arguments), self.loop).result()


async def wrap(func, arguments):
    return func(*arguments)


class Times:
    def __init__(self):
        self.cpu = time.process_time_ns()
        self.start = time.monotonic_ns()

    def end(self, n, ended=None):
        ended = ended or time.monotonic_ns()
        return {'n': n, 'ns': (ended - self.start) / n,
                'cpu_ns': (time.process_time_ns() - self.cpu) / n}


def percentiles(samples):
    samples = sorted(samples)
    n = len(samples)
    return {'p50_ns': samples[n // 2], 'p99_ns': samples[n * 99 // 100], 'max_ns': samples[-1]}


def require(condition, message):
    if not condition:
        sys.exit(message)


def posts(args, make):
    per_producer = args.count or 1_000_000
    total = per_producer * args.producers
    loop, done = make(), threading.Event()
    expected, ended = [0] * args.producers, []
    left = [total]

    def run(producer, sequence):
        require(expected[producer] == sequence, 'out of order')
        expected[producer] += 1
        left[0] -= 1
        if left[0] == 0:
            ended.append(time.monotonic_ns())
            done.set()

    def produce(producer):
        for sequence in range(per_producer):
            loop.post(run, producer, sequence)

    threads = [threading.Thread(target=produce, args=(i,)) for i in range(args.producers)]
    times = Times()
    for thread in threads:
        thread.start()
    done.wait()
    figures = times.end(total, ended[0])
    for thread in threads:
        thread.join()
    loop.end()
    return figures


def paced(n, interval, make, call):
    loop, samples, times = make(), [], Times()
    for i in range(n):
        time.sleep(interval)
        sent = time.monotonic_ns()
        if call:
            loop.call(int)
            samples.append(time.monotonic_ns() - sent)
        else:
            loop.post(lambda sent=sent: samples.append(time.monotonic_ns() - sent))
            while len(samples) <= i:
                time.sleep(20e-6)
    figures = times.end(n) | percentiles(samples)
    loop.end()
    return figures


def calls(args, make):
    loop, counts, times = make(), [0] * args.producers, Times()
    deadline = times.start + int((args.seconds or 0.5) * NSEC_PER_SEC)

    def repeat(caller):
        while time.monotonic_ns() < deadline:
            counts[caller] += 1
            require(loop.call(int.__add__, counts[caller], 1) == counts[caller] + 1, 'lost')

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(args.producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures = times.end(sum(counts))
    loop.end()
    return figures


def asks(args, make):
    """The caller runs a loop, too, and awaits what it asks of the other."""
    loop, times = make(), Times()
    deadline = times.start + int((args.seconds or 0.5) * NSEC_PER_SEC)
    count = [0]

    def ask(own):
        if isinstance(loop, CoroutineLoop):
            return asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(wrap(int, ()), loop.loop), loop=own)
        future = own.create_future()
        loop.post(lambda: own.call_soon_threadsafe(future.set_result, int()))
        return future

    async def repeat(own):
        while time.monotonic_ns() < deadline:
            count[0] += 1
            require(await ask(own) == 0, 'lost')

    async def all_of_them():
        own = asyncio.get_running_loop()
        await asyncio.gather(*(repeat(own) for _ in range(args.depth)))

    asyncio.run(all_of_them())
    figures = times.end(count[0])
    loop.end()
    return figures


def lives(args, make):
    times, n = Times(), 0
    deadline = times.start + int((args.seconds or 0.5) * NSEC_PER_SEC)
    while time.monotonic_ns() < deadline:
        loop = make()
        loop.call(int)
        loop.end()
        n += 1
    return times.end(n)


def delays(args, make):
    n = args.count or 100_000
    loop, done, late, ended = make(), threading.Event(), [], []

    def run(due):
        late.append(time.monotonic_ns() - due)
        if len(late) == n:
            ended.append(time.monotonic_ns())
            done.set()

    times = Times()
    for i in range(n):
        msec = i * 7919 % 51
        due = time.monotonic_ns() + msec * 1_000_000
        loop.loop.call_soon_threadsafe(loop.loop.call_later, msec / 1000, run, due)
    done.wait()
    figures = times.end(n, ended[0]) | percentiles(late)
    figures['early'] = sum(1 for each in late if each < 0)
    loop.end()
    return figures


def memory(args, make):
    n = args.count or 1_000_000
    loop, queued, done = make(), threading.Event(), threading.Event()
    loop.loop.call_soon_threadsafe(queued.wait)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(n):
        loop.post(int, i)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queued.set()
    loop.loop.call_soon_threadsafe(done.set)
    done.wait()
    loop.end()
    return {'n': n, 'bytes': (after - before) * 1024 / n}


WORKLOADS = {
    'W1': posts,
    'W1s': lambda args, make: paced(args.count or 2000, 100e-6, make, False),
    'W2': calls,
    'W2s': lambda args, make: paced(args.count or 500, 1e-3, make, True),
    'W3': asks,
    'W4': lives,
    'W6': delays,
    'W8': memory,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('workload')
    parser.add_argument('--count', type=int)
    parser.add_argument('--seconds', type=float)
    parser.add_argument('--producers', type=int, default=1)
    parser.add_argument('--depth', type=int, default=1)
    parser.add_argument('--loops', type=int)
    parser.add_argument('--busy', type=int, default=0)
    parser.add_argument('--cpus', type=int)
    parser.add_argument('--variant')
    args = parser.parse_args()

    about = {'system': 'asyncio', 'workload': args.workload}
    if args.workload not in WORKLOADS:
        print(json.dumps(about | {'skipped': 'nothing of the kind'}))
        return
    if args.cpus:
        os.sched_setaffinity(0, range(args.cpus))
    beside = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])
              for _ in range(args.busy)]
    try:
        make = CoroutineLoop if args.variant == 'coroutine' else Loop
        print(json.dumps(about | WORKLOADS[args.workload](args, make)))
    finally:
        for process in beside:
            process.kill()


if __name__ == '__main__':
    main()
