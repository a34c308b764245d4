"""The worker's side of the memory it shares with its parent (`tg_board.h`)."""

from typing import NoReturn

from typing_extensions import Buffer

size: int  # bytes of a board

def begin(board: Buffer, number: int, /) -> bool:
    """True: the token of that number is the worker's to run. False: it was taken back."""

def post(
    board: Buffer, number: int, started: int, run: int, kind: int, payload: bytes | None, /
) -> bool:
    """Posts a reply; False where it does not fit.

    started: monotonic ns; run: ns; payload: bytes or None.
    """

def receive(fd: int, size: int, head: bytes, mutable: bool, /) -> bytes | bytearray:
    """Exactly `size` bytes of a stream socket, of which `head` has been read already.

    Copied once. Blocks; fewer where the stream ends. OSError where reading fails.
    """

def address(buffer: Buffer, /) -> int:
    """Where it lies. It stays there while somebody holds the buffer."""

def copied(address: int, size: int, mutable: bool, /) -> bytes | bytearray:
    """What lies there, in this process. Somebody must hold it meanwhile."""

def lend(fd: int, message: bytes, settled: int, /) -> bool:
    """Sends a message that says where buffers lie, and returns once they have been read.

    fd: a stream socket. settled: another one, on which a byte then comes. True: it has. False: that
    socket's other end is closed, or the message could not be sent, and nobody reads them any more.
    Blocks; no exception that another thread raises here gets in between.
    """

def die_with_parent() -> bool:
    """Asks the system to kill this process when its parent ends. False where it cannot."""

def interrupt(thread: int, error: type[BaseException], /) -> bool:
    """Raises an exception class in another thread of this interpreter, once that runs Python code.

    False: there is no such thread.
    """

def end_within(seconds: int, message: bytes, /) -> None:
    """Ends the process with status 1 if it has not ended by itself, without any interpreter's help.

    message: bytes, written to standard error then. OSError where there can be no thread for it.
    """

def halt(fd: int, byte: bytes, /) -> NoReturn:
    """Never returns, and never comes back to its interpreter, which may be taken down meanwhile.

    Writes `byte`, if there is one, to the descriptor once it has left. Other threads of the
    interpreter go on.
    """
