# Copyright 2026 The bgloop developers
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of a database, in two forms: an asynchronous one, of coroutines, and one for everybody else that
runs the same coroutines on a loop in the background."""

import asyncio

import bgloop


class AsyncDatabase:
    @classmethod
    async def connect(cls, port):
        self = cls()
        self._reader, self._writer = await asyncio.open_connection('127.0.0.1', port)
        self._lock = asyncio.Lock()
        return self

    async def _ask(self, *words):
        async with self._lock:
            self._writer.write((' '.join(words) + '\n').encode())
            await self._writer.drain()
            return (await self._reader.readline()).decode().rstrip('\n')

    async def set(self, key, value):
        await self._ask('set', key, value)

    async def get(self, key):
        return await self._ask('get', key)

    async def keys(self):
        return (await self._ask('keys')).split()

    async def wait(self, seconds):
        return await self._ask('wait', str(seconds))

    async def get_all(self):
        keys = await self.keys()
        return dict(zip(keys, await asyncio.gather(*(self.get(key) for key in keys))))

    async def close(self):
        self._writer.close()
        await self._writer.wait_closed()


class Database:
    """All of them share the process's default loop, which starts with the first and ends after the last."""

    def __init__(self, port):
        self._loop = bgloop.Loop.default()
        self._database = self._loop.run(AsyncDatabase.connect(port))

    def set(self, key, value):
        self._loop.run(self._database.set(key, value))

    def get(self, key):
        return self._loop.run(self._database.get(key))

    def get_soon(self, key):
        return self._loop.spawn(self._database.get(key))

    def keys(self):
        return self._loop.run(self._database.keys())

    def get_all(self):
        return self._loop.run(self._database.get_all())

    def wait(self, seconds, timeout=None):
        return self._loop.run(self._database.wait(seconds), timeout=timeout)

    def close(self):
        if self._loop is not None:
            self._loop.run(self._database.close())
            self._loop = self._database = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
