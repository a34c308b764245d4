"""The web application that `web.py` loads, in a process of its own: one kind of handler.

It listens on a free port of 127.0.0.1 and prints it. `begin` on its standard input starts a
heartbeat on its loop, `end` stops that and prints what it saw; the end of the input stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Any

import _gate
from _lag import Beats
from _work import job

SLEEP = 0.005
GUARDED, POOLED = "await a guarded function", "await run_in_threadpool"
INSTALLED, PLAIN = "def, install(anyio=True)", "def"


def handler(kind: str, iterations: int) -> Callable[[], Any]:
    """What answers a request: `job` by the means that `kind` names."""
    from starlette.concurrency import run_in_threadpool

    guarded = _gate.guard(job, "bench.job")

    async def awaits_guarded() -> int:
        return await guarded(SLEEP, iterations)

    async def awaits_pool() -> int:
        return await run_in_threadpool(job, SLEEP, iterations)

    def plain() -> int:
        return job(SLEEP, iterations)

    return {GUARDED: awaits_guarded, POOLED: awaits_pool, INSTALLED: plain, PLAIN: plain}[kind]


def application(kind: str, iterations: int) -> Any:
    """The application: `/` does the work."""
    from fastapi import FastAPI

    from tokengate import install

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with install(anyio=True) if kind == INSTALLED else contextlib.nullcontext():
            yield

    app = FastAPI(lifespan=lifespan)
    app.get("/")(handler(kind, iterations))
    return app


class Control:
    """Carries out the lines of the standard input, on the loop."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._beats: Beats | None = None
        self._cpu = 0.0

    async def run(self) -> None:
        """Until the input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := await reader.readline():
            answer(await (self._begin() if line == b"begin\n" else self._end()))
        transport.close()
        self._stop()

    async def _begin(self) -> Mapping[str, Any]:
        self._beats = Beats()
        await self._beats.start()
        self._cpu = sum(os.times()[:2])
        return {}

    async def _end(self) -> Mapping[str, Any]:
        from tokengate import get_coordinator

        assert self._beats is not None
        lag = self._beats.stop()
        lane = get_coordinator().stats().lanes["thread"]
        return {
            "lag": asdict(lag),
            "cpu": sum(os.times()[:2]) - self._cpu,
            "limit": lane.limit,
            "cuts": lane.cuts,
        }


def answer(data: Mapping[str, Any]) -> None:
    """One line for the process that started this one."""
    sys.stdout.write(json.dumps(data) + "\n")
    sys.stdout.flush()


async def serve(kind: str, iterations: int) -> None:
    """Serve until the standard input ends."""
    import uvicorn

    config = uvicorn.Config(application(kind, iterations), log_level="warning", access_log=False)
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        answer({"port": listener.getsockname()[1]})
        control = asyncio.create_task(Control(stop).run())
        await server.serve(sockets=[listener])
        control.cancel()


if __name__ == "__main__":
    _gate.load()
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
