"""A plain thread outlives the main one and goes on calling: its tokens run, or say why not."""

import threading

import tokengate

ended = threading.Event()


@tokengate.task_token_guard
def work(i: int) -> int:
    return i


def caller() -> None:
    pause = threading.Event()
    while not tokengate.get_coordinator().stopped:
        assert work(1).exception(20) is None or tokengate.get_coordinator().stopped
        pause.wait(0.001)
    error = work(2).exception(20)
    print(type(error).__name__, flush=True)


assert work(0).result(20) == 0
threading.Thread(target=caller).start()
