"""Mistakes that every type checker must find, on the marked lines and on no other. Never run."""

import tokengate
from tokengate import (
    Coordinator,
    Executor,
    Token,
    TokenGroup,
    configure_default,
    gather,
    install,
    task_token_guard,
    use,
)


@task_token_guard
def half(number: int, *, loud: bool = False) -> float:
    return number / 2


class Service:
    @task_token_guard
    def method(self, number: int) -> str:
        return f"{self}{number}"

    @task_token_guard
    @classmethod
    def class_method(cls, number: int) -> str:
        return f"{cls}{number}"

    @task_token_guard
    @staticmethod
    def static_method(number: int) -> str:
        return str(number)


half("1")  # error
half()  # error
half(1, 2)  # error
half(1, loud="yes")  # error
half(1, quiet=True)  # error
half.options(tags={})("1")  # error
half.options(limit=3)  # error
half.__wrapped__("1")  # error

Service().method("1")  # error
Service().method(Service(), 1)  # error
Service.method(1)  # error
Service.class_method("1")  # error
Service.class_method(Service, 1)  # error
Service().class_method()  # error
Service.static_method("1")  # error
Service().static_method()  # error

task_token_guard(1)  # error
task_token_guard(tags="heavy")  # error
task_token_guard(limit="3")  # error


def results(token: Token[int], coordinator: Coordinator) -> None:
    wrong: Token[str] = token  # error
    text: str = wrong.result()
    text = token.result()  # error
    text = half(1)  # error
    text = str(half(1) + 1)  # error
    assert text
    token.state = 3  # error
    token.get()  # error
    token.kill(3)  # error
    Token(3)  # error


async def waiting(token: Token[int]) -> None:
    text: str = await token  # error
    texts: list[str] = await half.map([1])  # error
    # with return_exceptions what comes may be an exception
    numbers: list[float] = await half.map([1], return_exceptions=True)  # error
    numbers = await half.map([1], tokens=True)  # error
    await half.map(3)  # error
    await half.starmap([3])  # error
    await gather(3)  # error
    await gather([token])  # error
    assert text, (texts, numbers)


def coordinators(coordinator: Coordinator) -> None:
    coordinator.submit(half, "1")  # error
    coordinator.submit(pow)  # error
    coordinator.submit(3)  # error
    Coordinator(pin="all")  # error
    Coordinator(3)  # error
    configure_default(workers=3)  # error
    configure_default(thread_workers="3")  # error
    use(3)  # error


async def groups(service: Service) -> None:
    async with TokenGroup() as group:
        group.start(half, "1")  # error
        group.start(half)  # error
        group.start(half, 1, quiet=True)  # error
        group.start(service.method, "1")  # error
        group.start(len, 3)  # error
        group.start(3)  # error
        group.start()  # error
        text: str = await group.start(half, 1)  # error
        assert text
    TokenGroup(True)  # error
    TokenGroup(abandon=3)  # error
    TokenGroup(coordinator=3)  # error


def executors(executor: Executor) -> None:
    executor.submit(half, "1")  # error
    executor.submit(len, 3)  # error
    executor.submit(3)  # error
    text: str = executor.submit(len, "x").result()  # error
    assert text
    Executor("4")  # error
    Executor(coordinator=3)  # error
    install(3)  # error
    install(anyio="yes")  # error


str(tokengate.no_such_name)  # error
