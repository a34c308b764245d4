"""Blocking I/O beside a live loop.

Usage: python demo/blocking_io.py [requests, default 200]

`fetch` is an ordinary blocking function. The server it talks to runs on the very event loop that
awaits the tokens: if the calls blocked that loop, no request would ever be answered.
"""

import asyncio
import sys
import time
from contextlib import closing
from http.client import HTTPConnection

from tokengate import task_token_guard

ANSWER_AFTER = 0.1


@task_token_guard(operation_type="fetch")
def fetch(host: str, port: int, path: str) -> str:
    """Get one page; blocks for as long as the server takes."""
    with closing(HTTPConnection(host, port, timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one request, a tenth of a second late."""
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    await asyncio.sleep(ANSWER_AFTER)
    writer.write(f"HTTP/1.0 200 OK\r\n\r\nyou asked for {path}".encode())
    await writer.drain()
    writer.close()


async def heartbeat(late: list[float]) -> None:
    """Note every 10 ms how late the loop is."""
    while True:
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        late.append(time.monotonic() - due)


async def main(requests: int) -> None:
    """Send all requests at once and watch the loop meanwhile."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=requests)
    host, port = server.sockets[0].getsockname()
    late: list[float] = []
    pulse = asyncio.create_task(heartbeat(late))

    start = time.perf_counter()
    pages = await asyncio.gather(*[fetch(host, port, f"/{i}") for i in range(requests)])
    seconds = time.perf_counter() - start

    pulse.cancel()
    server.close()
    right = sum(page == f"you asked for /{i}" for i, page in enumerate(pages))
    one_by_one = requests * ANSWER_AFTER
    print(f"{right} of {requests} blocking requests answered in {seconds:.2f} s")
    print(f"one after the other they take at least {one_by_one:.0f} s")
    print(f"meanwhile the loop beat {len(late)} times, at worst {max(late) * 1e3:.1f} ms late")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
