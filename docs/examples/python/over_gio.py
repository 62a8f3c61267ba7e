# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The same client over Gio's asynchronous operations, which are performed on a loop in the background."""

import bgloop
from gi.repository import Gio, GLib

PRIORITY = GLib.PRIORITY_DEFAULT


class Database:
    """All of them share the process's default loop, which starts with the first and ends after the last."""

    def __init__(self, port):
        self._loop = bgloop.Loop.default()
        self._connection = self._loop.perform(Gio.SocketClient().connect_to_host_async, '127.0.0.1', port)
        self._input = Gio.DataInputStream.new(self._connection.get_input_stream())
        self._output = self._connection.get_output_stream()

    def _send(self, *words):
        request = GLib.Bytes.new((' '.join(words) + '\n').encode())
        self._loop.perform(self._output.write_bytes_async, request, PRIORITY)

    def _ask(self, *words, timeout=None):
        self._send(*words)
        line, _ = self._loop.perform(self._input.read_line_async, PRIORITY, timeout=timeout,
                                     finish=self._input.read_line_finish_utf8)
        return line

    def set(self, key, value):
        self._ask('set', key, value)

    def get(self, key):
        return self._ask('get', key)

    def get_soon(self, key):
        self._send('get', key)
        return self._loop.perform_soon(self._input.read_line_async, PRIORITY,
                                       finish=lambda result: self._input.read_line_finish_utf8(result)[0])

    def keys(self):
        return self._ask('keys').split()

    def get_all(self):
        return {key: self.get(key) for key in self.keys()}

    def wait(self, seconds, timeout=None):
        return self._ask('wait', str(seconds), timeout=timeout)

    def close(self):
        if self._loop is not None:
            self._loop.perform(self._connection.close_async, PRIORITY)
            self._loop = self._connection = self._input = self._output = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
