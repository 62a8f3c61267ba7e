#!/usr/bin/env python3
# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A database for the clients: a line for each request, a line for each answer. Says its port."""

import socketserver
import sys
import time


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            command, *words = line.decode().split()
            self.wfile.write((self.answer(command, *words) + '\n').encode())

    def answer(self, command, key='', value=''):
        values = self.server.values
        if command == 'set':
            values[key] = value
            return 'ok'
        if command == 'get':
            return values.get(key, '')
        if command == 'keys':
            return ' '.join(sorted(values))
        if command == 'wait':
            time.sleep(float(key))
            return 'waited'
        return 'error'


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


with Server(('127.0.0.1', 0), Handler) as server:
    server.values = {}
    print(server.server_address[1], flush=True)
    sys.stdin.close()
    server.serve_forever()
