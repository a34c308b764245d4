"""The documentation against the code: every table, constant, path and link in it is true."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import re
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import tokengate
from tokengate import Coordinator, Token, TokenState, _core, task_token_guard, use
from tokengate.policy import Overflow, checked_policy

if TYPE_CHECKING:
    from tests.conftest import Gate

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "tokengate"  # the source: what is installed has neither headers nor .pxi files
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "demo/README.md", ROOT / "bench/README.md"]
)

pytestmark = pytest.mark.skipif(
    not (DOCS.is_dir() and (PACKAGE / "_native").is_dir()),
    reason="docs and sources are not beside the tests",
)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def table(page: str, first: str) -> list[list[str]]:
    """The rows of all tables of a page whose first column is called that."""
    rows: list[list[str]] = []
    inside = False
    for line in read(DOCS / page).splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[0] == first:
            inside = True
        elif inside and set(line) - set("|-"):
            rows.append(cells)
    assert rows, f"{page} has no table {first!r}"
    return rows


def code(cell: str) -> str:
    """What a cell has between its first backticks."""
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


def number(text: str) -> float:
    return float(re.sub(r"[,_]", "", text))


# -- lifecycle.md ------------------------------------------------------------------------------


def test_edges_are_those_of_the_core() -> None:
    told = [(row[0], row[1], code(row[2])) for row in table("lifecycle.md", "from")]
    names = [state.name for state in TokenState]
    assert told == [(names[source], names[to], by) for source, to, by in _core.edges()]


def test_an_edge_is_reserved_exactly_where_nothing_takes_it() -> None:
    parts = "".join(read(path) for path in PACKAGE.glob("_corelib/*.pxi"))
    parts += read(PACKAGE / "_native/tg_pool.h") + read(PACKAGE / "_native/tg_places.h")
    # declarations aside, a named edge is called where its answer is used
    calls = re.findall(r"(?<!tg_step )tg_word_(\w+)\(", parts)
    assert {"try_admit", "finish", "submit"} <= set(calls)
    # a token fails unrun in one place, on its way in: just after it was submitted, never admitted
    on_the_way = re.findall(r"tg_word_submit\(&(.+)\)\s+step = tg_word_fail_unrun\(&\1\)", parts)
    assert len(on_the_way) == calls.count("fail_unrun")
    for source, to, by, taken in table("lifecycle.md", "from"):
        if code(by) == "end":
            reserved = not re.search(rf"end\(\s*TG_{to}\b", parts)
        elif code(by) == "fail_unrun":
            reserved = source == "ADMITTED" or "fail_unrun" not in calls
        else:
            reserved = code(by) not in calls
        assert taken.startswith("reserved") == reserved, (source, to)


async def test_the_edges_out_of_created(coordinator: Coordinator) -> None:
    """Calls that never come to wait: a full queue refuses them, or has no room for them in time."""
    names = [f"lifecycle.md, {overflow}" for overflow in ("reject", "block")]

    def nothing(_: int) -> None: ...

    rejecting = task_token_guard(names[0], limit=1, max_waiting=1)(nothing)
    blocking = task_token_guard(names[1], limit=1, max_waiting=1, overflow="block")(nothing)
    with use(coordinator):
        coordinator.pause()
        waiting = [rejecting(0), blocking(0)]
        killed = rejecting(1)
        expired = await asyncio.to_thread(blocking.options(timeout=0.02), 1)
        with pytest.raises(TimeoutError):  # a map keeps its next call back, and cancels it
            await asyncio.wait_for(_listed(blocking.map([1])), 0.02)
        assert {token.state for token in waiting} == {TokenState.WAITING}
        assert (killed.state, expired.state) == (TokenState.KILLED, TokenState.EXPIRED)
        figures = coordinator.stats().operations[names[1]]
        assert (figures.submitted, figures.cancelled, figures.expired) == (3, 1, 1)
        assert coordinator.discard() == len(waiting)
        coordinator.resume()


async def _listed(results: Awaitable[list[Any]]) -> list[Any]:
    return await results


async def test_awaiters_get_what_is_told(coordinator: Coordinator, gate: Gate) -> None:
    completed = coordinator.submit(int, "1")
    failed = coordinator.submit(int, "x")
    cancelled, killed = coordinator.submit(gate), coordinator.submit(gate)
    cancelled.cancel()
    killed.kill("why")
    tokens: list[Token[Any]] = [completed, failed, cancelled, killed]
    outcomes = await asyncio.gather(*tokens, return_exceptions=True)
    gate.open()
    rows = {row[0]: row[1:] for row in table("lifecycle.md", "state")}
    assert list(rows) == [state.name for state in TokenState if state.ended]
    assert [token.state.name for token in tokens] == [name for name in rows if name != "EXPIRED"]
    for token, outcome in zip(tokens, outcomes, strict=True):
        awaited, asked = rows[token.state.name]
        if not isinstance(outcome, BaseException):
            assert (awaited, asked) == ("the function's result", "`None`")
            assert (outcome, token.exception()) == (1, None)
            continue
        assert awaited.startswith("raises")
        named = f"`{type(outcome).__name__}`" in awaited
        assert named or "the function's own exception" in awaited
        if asked == "returns it":
            assert type(token.exception()) is type(outcome)
        else:
            assert asked == "raises it too"
            with pytest.raises(type(outcome)):
                token.exception()
    assert "`TokenExpired`, a `TimeoutError`" in rows["EXPIRED"][0]
    assert issubclass(tokengate.TokenExpired, TimeoutError)


def test_what_must_not_act_on_the_awaiter_is_listed(coordinator: Coordinator) -> None:
    text = read(DOCS / "lifecycle.md").replace("\n", " ")
    [listed] = re.findall(r"- (`SystemExit`.*?), raised by the function", text)
    for name in re.findall(r"`([\w.]+)`", listed):
        error = eval(name, {"asyncio": asyncio, "tokengate": tokengate})

        def function(error: type[BaseException] = error) -> None:
            raise error

        assert isinstance(coordinator.submit(function).exception(20), tokengate.FunctionExited)
    assert len(re.findall(r"`[\w.]+`", listed)) == len(vars(_core)["_MUST_NOT_ACT"])


def test_errors_are_those_there_are() -> None:
    rows = table("lifecycle.md", "error")
    named = {code(row[0]): row[1] for row in rows}
    errors = {
        name: kind
        for name in tokengate.__all__
        if inspect.isclass(kind := getattr(tokengate, name)) and issubclass(kind, Exception)
    }
    assert set(named) == set(errors)
    for name, _, when in rows:
        for kind in re.findall(r"an? `(\w+)`", when):
            assert issubclass(errors[code(name)], errors.get(kind) or getattr(builtins, kind))
    sources = "".join(
        read(path)
        for pattern in ("**/*.py", "_corelib/*.pxi")
        for path in PACKAGE.glob(pattern)
        if path.name != "errors.py"
    )
    for name, by in named.items():
        made = re.search(rf"\b{name}(?:\(|, f?\"|,\s+f\")", sources) is not None
        assert made == (by not in ("nothing yet", "")), name


# -- gate.md -----------------------------------------------------------------------------------


def test_constants_have_the_values_of_the_sources() -> None:
    for cell, value, file in table("gate.md", "constant"):
        name = code(cell)
        found = re.findall(rf"\b{name}(?: =)? ([\d_]+(?:\.\d+)?)u?\b", read(ROOT / code(file)))
        assert [number(each) for each in found] == [number(value)], name


def test_every_constant_named_on_a_page_is_in_the_table() -> None:
    listed = {code(row[0]) for row in table("gate.md", "constant")}
    text = "\n".join(read(page) for page in PAGES)
    text = re.sub(r"^\| `[A-Z_]+` \|.*$", "", text, flags=re.M)  # the table's own rows
    sources = "".join(
        read(path) for kind in ("py", "pxi", "h") for path in PACKAGE.rglob(f"*.{kind}")
    )
    named = {
        name
        for name in re.findall(r"`([A-Z]+_[A-Z_]+)`", text)
        if re.search(rf"\b{name}(?: =)? \d", sources)
    }
    assert named <= listed
    assert {name for name in listed if f"`{name}`" not in text} == set()


def test_hints_are_those_of_the_core() -> None:
    units = {"us": 1_000, "ms": 1_000_000}
    told = {}
    for cell, expected in table("gate.md", "weight"):
        amount, unit = expected.split()
        told[code(cell)] = int(amount) * units[unit]
    assert told == vars(_core)["_HINTS"]


def test_defaults_of_a_coordinator_are_told() -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(Coordinator).parameters.items()
    }
    assert defaults == {
        code(row[0]): ast.literal_eval(code(row[1])) for row in table("gate.md", "argument")
    }


def test_defaults_of_a_policy_are_told() -> None:
    told = {code(row[0]): ast.literal_eval(code(row[1])) for row in table("gate.md", "policy")}
    assert told == checked_policy().as_dict()
    arguments = inspect.signature(tokengate.task_token_guard).parameters
    assert told == {name: arguments[name].default for name in told}


def test_kinds_of_overflow_are_told() -> None:
    told = {ast.literal_eval(code(row[0])) for row in table("gate.md", "overflow")}
    assert told == set(get_args(Overflow))


# -- memory-model.md ---------------------------------------------------------------------------


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def declared_atomics() -> Iterator[tuple[str, str]]:
    """(header, name) of every atomic: `struct.field`, or the name alone of a global one."""
    declaration = re.compile(
        r"(?:static )?(?:_Atomic(?:\([^)]*\)| \w+)|tg_word)\s+([\w\s,=\[\]+]+);"
    )
    for header in sorted((PACKAGE / "_native").glob("*.h")):
        text = without_comments(read(header))
        bodies = [
            (match[2], match[1])
            for match in re.finditer(
                r"typedef struct(?: \w+)? \{(.*?)\n\} (\w+);", text, flags=re.S
            )
        ]
        for name, body in bodies:
            text = text.replace(body, "")
            for found in declaration.finditer(body):
                for field in found[1].split(","):
                    yield header.name, f"{name}.{field.split('[')[0].strip()}"
        text = re.sub(r"typedef[^;{]*;", "", text)
        for found in declaration.finditer(text):
            yield header.name, found[1].split("=")[0].strip()


def orders_in_use(header: str, name: str) -> set[str]:
    """The orders with which the headers access what has that last name, as far as it is named."""
    last = name.rpartition(".")[2]
    sources = [read(PACKAGE / "_native" / header)]
    if header in ("tg_token.h", "tg_ring.h"):
        sources += [read(PACKAGE / f"_native/{other}.h") for other in ("tg_pool", "tg_places")]
    if name == "tg_token.word":
        last, sources = "w", [read(PACKAGE / "_native/tg_word.h")]
    orders: set[str] = set()
    for source in sources:
        for call in re.findall(r"atomic_\w+_explicit\((.*?)\)\s*[;)!=&|{?]", source, flags=re.S):
            target = call.partition(",")[0]
            if re.search(rf"(?:^|->|\.|&){last}(?:\[[^\]]*\])*$", target.strip()):
                orders |= set(re.findall(r"memory_order_(\w+)", call))
    return orders


def test_every_atomic_has_a_row() -> None:
    told = [code(row[0]) for row in table("memory-model.md", "atomic")]
    assert sorted(told) == sorted(name for _, name in declared_atomics())


def test_the_parser_sees_every_atomic_there_is() -> None:
    """So that no new way to declare one goes unnoticed."""
    for header in sorted((PACKAGE / "_native").glob("*.h")):
        text = without_comments(read(header))
        text = re.sub(r"\(_Atomic|typedef _Atomic|, _Atomic", "", text)  # parameters, the alias
        lines = re.findall(r"^.*(?:\b_Atomic\b|^\s*tg_word \w+;).*$", text, flags=re.M)
        expected = sum(line.split("]")[-1].count(",") + 1 for line in lines)
        assert sum(name == header.name for name, _ in declared_atomics()) == expected, header.name


def test_orders_are_those_of_the_code() -> None:
    atomics = {name: header for header, name in declared_atomics()}
    headers = [read(path) for path in (PACKAGE / "_native").glob("*.h")]
    assert not any("atomic_thread_fence(" in header for header in headers)
    seen = 0
    for cell, *_, order, _ in table("memory-model.md", "atomic"):
        name = code(cell)
        told = set(re.findall(r"\b(relaxed|acquire|release|acq_rel|seq_cst)\b", order))
        used = orders_in_use(atomics[name], name)
        seen += bool(used)
        # statistics read through tg_counted(), and stamps are written through tg_stamp(): relaxed
        assert used <= told, name
        assert told - used <= {"relaxed"} or not used, name
    assert seen > 25


# -- architecture.md ---------------------------------------------------------------------------


def listed_files() -> list[str]:
    return [code(row[0]) for row in table("architecture.md", "file")]


def test_every_file_has_its_place_in_the_architecture() -> None:
    files = {
        path.relative_to(PACKAGE).as_posix()
        for pattern in ("*.py", "*.pyx", "*.pyi", "*.pxi", "*.h", "*.c", "py.typed")
        for path in PACKAGE.rglob(pattern)
    }
    assert sorted(listed_files()) == sorted(files)


def imported(path: Path) -> Iterator[str]:
    """Files of the package that a module imports when it is imported itself."""
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).parts[: -node.level]
                base = ".".join([*package, base]).rstrip(".")
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.startswith("tokengate."):
                stem = name.removeprefix("tokengate.").replace(".", "/")
                for candidate in (f"{stem}.py", f"{stem}.pyx", f"{stem}/__init__.py"):
                    if (PACKAGE / candidate).exists():
                        yield candidate


def used_by(file: str) -> Iterator[str]:
    path = PACKAGE / file
    text = read(path)
    if path.suffix == ".h":
        yield from (f"_native/{name}" for name in re.findall(r'#\s*include "(\w+\.h)"', text))
    elif path.suffix == ".py":
        yield from imported(path)
    elif path.suffix == ".pyx":
        yield from re.findall(r'^include "(.*)"', text, flags=re.M)
    elif path.suffix == ".pxi":
        yield from (f"_native/{name}" for name in re.findall(r'from "(tg_\w+\.h)"', text))
        modules = re.findall(r"^from tokengate\.(\w+) import", text, flags=re.M)
        yield from (f"{module}.py" for module in modules)


def test_files_use_only_what_stands_above_them() -> None:
    order = listed_files()
    uses = [(file, other) for file in order for other in used_by(file)]
    assert len(uses) > 60
    assert [(file, other) for file, other in uses if order.index(other) >= order.index(file)] == []
    parts = [file for file in order if file.endswith(".pxi")]
    assert [other for file, other in uses if file == "_core.pyx"] == parts


def test_headers_know_nothing_of_python() -> None:
    for header in (PACKAGE / "_native").glob("*.h"):
        assert "Python.h" not in re.findall(r"#\s*include [<\"](.*)[>\"]", read(header))


# -- all pages ---------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", read(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        other = (page.parent / file).resolve() if file else page
        assert other.exists(), target
        assert ROOT in [other, *other.parents], target
        assert not anchor or anchor in anchors(other), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_and_make_targets_exist(page: Path) -> None:
    text = read(page)
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), flags=re.M))
    assert set(re.findall(r"(?:`|^ {4})make ([a-z]+)", text, flags=re.M)) <= targets
    for path in re.findall(r"`((?:tokengate|tests|bench|demo|docs)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


def test_every_public_name_is_explained() -> None:
    text = "".join(read(page) for page in PAGES)
    for name in set(tokengate.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", text), name
