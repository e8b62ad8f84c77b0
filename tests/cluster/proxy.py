"""The links between nodes as a test wants them: one TCP proxy for each direction of each pair.

A node connects to another for what it sends, and hears nothing on that connection but ZeroMQ's own
heartbeats: so the link from n1 to n2 carries n1's messages to n2, and no others.

Rules of this file:

1. Everything is on 127.0.0.1 and on one thread, and is closed when the links are left.
2. What waits in the proxy is bounded: a link that does not carry is not read, and the sender's own
   queues fill.
3. A link that lost bytes never carries again on the same connection: the bytes behind them would be
   taken for the middle of a message.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any, Self, TypeVar

HOST = "127.0.0.1"
READ_BYTES_MAX = 1 << 16
SECONDS = 10.0
"""Longer than anything here takes."""

T = TypeVar("T")


class Mode(Enum):
    """What a link does."""

    CARRY = "carries"
    HOLD = "holds back"
    """Nothing passes, either way; what was sent comes when the link carries again, late."""
    SWALLOW = "swallows"
    """What is sent is lost without a word; the receiver's heartbeats still come back."""
    REFUSE = "refuses"
    """The connection breaks, and every new one."""


class _Link:
    """One proxy; all of it on the thread of the loop."""

    def __init__(self, port: int) -> None:
        self.mode = Mode.CARRY
        self._port = port
        """Of the receiver."""
        self._carries = asyncio.Event()
        self._carries.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> str:
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=READ_BYTES_MAX)
        return f"tcp://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def set(self, mode: Mode) -> None:
        before, self.mode = self.mode, mode
        if mode is Mode.HOLD:
            self._carries.clear()
        else:
            self._carries.set()
        if mode is Mode.REFUSE or (before is Mode.SWALLOW and mode is not Mode.SWALLOW):
            await self._break()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._break()

    async def _break(self) -> None:
        for task in (connections := list(self._connections)):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both ways until either end is over."""
        ends, pumps = [writer], []
        try:
            if self.mode is Mode.REFUSE:
                return
            there = await asyncio.open_connection(HOST, self._port, limit=READ_BYTES_MAX)
            ends.append(there[1])
            pumps.append(asyncio.ensure_future(self._pump(reader, there[1], swallows=True)))
            pumps.append(asyncio.ensure_future(self._pump(there[0], writer, swallows=False)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the receiver is down: the sender sees its connection end, and tries again
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, swallows: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(READ_BYTES_MAX):
                await self._carries.wait()
                if swallows and self.mode is Mode.SWALLOW:
                    continue
                writer.write(data)
                await writer.drain()


class Links:
    """All links of a cluster; a context manager. One thread uses it."""

    def __init__(self) -> None:
        self._links: dict[tuple[str, str], _Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links")
        self._thread.start()

    def route(self, sender: str, receiver: str, address: str) -> str:
        """The address under which `sender` reaches `receiver`, which listens at `address`."""
        link = self._links[sender, receiver] = _Link(int(address.rpartition(":")[2]))
        return self._run(link.listen())

    def set(self, sender: str, receiver: str, mode: Mode) -> None:
        """From when this returns on, the link is so."""
        self._run(self._links[sender, receiver].set(mode))

    def mode(self, sender: str, receiver: str) -> Mode:
        return self._links[sender, receiver].mode

    def heal(self) -> None:
        """Let every link carry."""
        for pair in self._links:
            self.set(*pair, Mode.CARRY)

    def close(self) -> None:
        """End every connection and the thread."""
        for link in self._links.values():
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)
