"""multiprocessing with the fork method, from a process that uses the coordinator meanwhile."""

import multiprocessing

import tokengate


@tokengate.task_token_guard
def work(i: int) -> int:
    return i + 1


def in_child(i: int) -> int:
    return sum(token.result(20) for token in [work(i), work(i)])


if __name__ == "__main__":
    assert work(1).result(20) == 2
    tokens = [work(i) for i in range(10_000)]
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2) as pool:
        print(pool.map(in_child, range(6)))
    process = fork.Process(target=in_child, args=(1,))
    process.start()
    process.join()
    print(process.exitcode)
    assert [token.result(20) for token in tokens] == list(range(1, 10_001))
