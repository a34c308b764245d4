"""A web service whose blocking work goes through TokenGate: guarded, limited, and on show.

Usage: python demo/web.py [port, default 8000]

`query` stands for a database driver or any other call that blocks. The four ways in which a FastAPI
application comes to such calls are four routes here; `/stats` shows what each of them does. What is
too much is refused with 503, what takes too long ends with 504, and who hangs up gives up the place
in the queue. It takes `pip install fastapi uvicorn`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from tokengate import GateFull, Token, TokenExpired, get_coordinator, install, task_token_guard

R = TypeVar("R")


def query(what: str) -> str:
    """Blocks for as long as the database takes."""
    time.sleep(0.005)
    return f"all about {what}"


@task_token_guard("user")
def current_user(name: str = "ada") -> str:
    """A dependency; FastAPI awaits its token."""
    query(name)
    return name


@task_token_guard("price", timeout=5.0)
def look_up_price(item: str) -> str:
    """Awaited in an asynchronous route."""
    return query(item)


@task_token_guard("report", limit=2, max_waiting=4)
def make_report(year: int) -> str:
    """Two at once and four in the queue; the next is refused."""
    return query(f"the year {year}")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """While the service runs, `asyncio.to_thread` and plain `def` routes are tokens as well."""
    with install(anyio=True):
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(GateFull)
async def refuse(_: Request, full: GateFull) -> Response:
    """The queue is full: come back later."""
    return JSONResponse({"detail": str(full)}, 503, {"Retry-After": "1"})


@app.exception_handler(TokenExpired)
async def too_late(_: Request, expired: TokenExpired) -> Response:
    """The deadline has passed."""
    return JSONResponse({"detail": str(expired)}, 504)


async def while_connected(request: Request, token: Token[R]) -> R:
    """The token's result; if the client hangs up first, the token is cancelled."""

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        token.cancel()

    watch = asyncio.create_task(hung_up())
    try:
        return await token
    except asyncio.CancelledError:
        if not watch.done():
            raise  # it is this request that is cancelled: the server stops
        raise HTTPException(499, "the client has gone") from None
    finally:
        watch.cancel()


@app.get("/price/{item}")
async def price(item: str, user: Annotated[str, Depends(current_user)]) -> dict[str, str]:
    """A guarded function, awaited; another one is its dependency."""
    return {"user": user, "price": await look_up_price(item)}


@app.get("/report/{year}")
async def report(request: Request, year: int) -> dict[str, str]:
    """A guarded function of which there may not be too many."""
    return {"report": await while_connected(request, make_report(year))}


@app.get("/search/{words}")
@task_token_guard("search")
def search(words: str) -> dict[str, str]:
    """A guarded function that is itself the route."""
    return {"found": query(words)}


@app.get("/library/{what}")
async def library(what: str) -> dict[str, str]:
    """A library's call off the loop, which knows nothing of TokenGate."""
    return {"library": await asyncio.to_thread(query, what)}


@app.get("/plain/{what}")
def plain(what: str) -> dict[str, str]:
    """A plain `def` route, which the framework sends to its threads."""
    return {"plain": query(what)}


@app.get("/stats")
async def stats() -> dict[str, Any]:
    """All that the coordinator knows; cheap enough to be asked every second."""
    return get_coordinator().stats().as_dict()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
