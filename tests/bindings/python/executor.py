# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A loop that is made as executors are, for CPython's tests of those."""

import threading
import time

import bgloop


class Worker:
    """The thread of a loop, to be joined."""

    def __init__(self, thread):
        self.ident = thread.ident
        self.thread = thread

    def join(self):
        while any(thread is self.thread for thread in threading.enumerate()):
            time.sleep(0.001)


class LoopExecutor:
    def __new__(cls, max_workers=None):
        loop = bgloop.Loop()
        loop._threads = [Worker(loop.call(threading.current_thread))]
        return loop
