"""A load generator for HTTP on this machine: so many connections, each with one request in flight.

A protocol of its own instead of a client library: a request costs it some 30 us, so that the server
is what is measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
GOOD = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True)
class Load:
    """What the connections saw in `seconds`: of each request, in s, how long it took."""

    seconds: float
    latencies: tuple[float, ...]
    cpu: float

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


class Connection(asyncio.Protocol):
    """One client: sends the next request when the answer to the last one is complete.

    Raises, by way of `failed`, AssertionError for any answer but 200 with `expected` as its body.
    """

    def __init__(self, expected: bytes, failed: asyncio.Future[None]) -> None:
        self.latencies: list[float] = []
        self._ending = b"\r\n\r\n" + expected
        self._failed = failed
        self._got = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """A part of an answer; the next request when it is whole."""
        self._got += data
        if not self._got.endswith(self._ending):
            if len(self._got) > 4096:
                self._fail(f"unexpected answer {self._got[:300]!r}")
            return
        if not self._got.startswith(GOOD):
            self._fail(f"unexpected answer {self._got[:300]!r}")
            return
        self.latencies.append(time.perf_counter() - self._sent)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server is not expected to close it."""
        if not self._transport.is_closing():
            self._fail(f"the server closed a connection: {exc!r}")

    def close(self) -> None:
        """No further request."""
        self._transport.abort()

    def _send(self) -> None:
        self._got = b""
        self._sent = time.perf_counter()
        self._transport.write(REQUEST)

    def _fail(self, why: str) -> None:
        if not self._failed.done():
            self._failed.set_exception(AssertionError(why))


class Clients:
    """So many connections to a port, from `open` to `close`."""

    def __init__(self, port: int, count: int, expected: bytes) -> None:
        self._port = port
        self._count = count
        self._expected = expected
        self._connections: list[Connection] = []
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Connect all; each sends its first request at once."""
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(
                lambda: Connection(self._expected, self._failed), "127.0.0.1", self._port
            )
            self._connections.append(connection)

    async def load(self, seconds: float) -> Load:
        """What is answered within that time. AssertionError for a wrong answer."""
        for connection in self._connections:
            connection.latencies.clear()
        cpu = sum(os.times()[:2])
        start = time.perf_counter()
        await asyncio.wait([self._failed], timeout=seconds)
        took = time.perf_counter() - start
        cpu = sum(os.times()[:2]) - cpu
        if self._failed.done():
            self._failed.result()
        latencies = [each for connection in self._connections for each in connection.latencies]
        if not latencies:
            raise AssertionError(f"no request was answered within {seconds} s")
        return Load(took, tuple(latencies), cpu)

    async def close(self) -> None:
        """Close all, and see them closed."""
        for connection in self._connections:
            connection.close()
        await asyncio.sleep(0)
