"""Used before the fork, as a server that loads its application first does; then many children.

Each child calls, on a loop and off it, and ends as a program does: at the end of this file.
"""

import asyncio
import faulthandler
import os
import sys

import tokengate

CHILDREN = 12
own = tokengate.Coordinator(thread_workers=2, name="own")


@tokengate.task_token_guard
def work(i: int) -> int:
    return i + 1


async def serve() -> "list[int]":
    return await asyncio.gather(*[work(i) for i in range(50)])


def use_everything() -> None:
    assert asyncio.run(serve()) == list(range(1, 51))
    assert list(work.map(range(50))) == list(range(1, 51))
    assert own.submit(work, 1).result(20) == 2


use_everything()
children = []
for _ in range(CHILDREN):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(30, exit=True)
        use_everything()
        faulthandler.cancel_dump_traceback_later()  # its thread would be missed in the grandchild
        grandchild = os.fork()
        use_everything()
        if grandchild:
            _, status = os.waitpid(grandchild, 0)
            sys.exit(os.waitstatus_to_exitcode(status))
        sys.exit(0)
    children.append(child)
    use_everything()
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(codes == [0] * CHILDREN)
