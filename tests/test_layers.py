"""The floors of docs/architecture.md: import only from floors below your own. Functions' own imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tts_plugins"
INTEGRATIONS = PACKAGE.parent / "integrations"

# The floors of docs/architecture.md. The longest matching prefix decides. Parts of one row do not know each other,
# unless they share a name here.
ROWS: Mapping[str, tuple[int, str]] = {
    "tts_plugins.types": (1, "types"),
    "tts_plugins.errors": (1, "types"),
    "tts_plugins._version": (1, "types"),
    "tts_plugins._concurrency.forks": (-1, "forks"),
    "tts_plugins._concurrency.running_code": (0, "running_code"),
    "tts_plugins._concurrency.thread_pool": (1, "thread_pool"),
    "tts_plugins._concurrency.wait_graph": (1, "wait_graph"),
    "tts_plugins._concurrency.loop_threads": (1, "thread_pool"),
    "tts_plugins._concurrency.sync_calls": (2, "threads"),
    "tts_plugins._concurrency": (1, "concurrency"),
    "tts_plugins._internal.threads": (2, "threads"),  # leaves: of ours they import nothing but the two above
    "tts_plugins._internal.untrusted_text": (1, "untrusted"),
    "tts_plugins._internal.values": (0, "values"),
    "tts_plugins._internal.request_sent": (1, "request_sent"),
    "tts_plugins._internal": (2, "pure"),
    "tts_plugins._storage": (2, "storage"),
    "tts_plugins.budget": (2, "pure"),
    "tts_plugins.ledger": (2, "pure"),
    "tts_plugins.selection": (2, "pure"),
    "tts_plugins._votes": (2, "pure"),
    "tts_plugins.confidence": (2, "pure"),
    "tts_plugins.answers": (2, "pure"),
    "tts_plugins.steps": (2, "pure"),
    "tts_plugins.prompts": (2, "pure"),
    "tts_plugins.pools": (2, "pure"),  # records in files: the model and the verifier that replay them read the same
    "tts_plugins.metrics": (2, "pure"),  # statistics, for whoever fits or measures
    "tts_plugins.protocols": (3, "protocols"),
    "tts_plugins.runs": (3, "protocols"),  # runs that wrap another
    "tts_plugins.stopping": (3, "stopping"),
    "tts_plugins.strategies": (4, "strategies"),
    "tts_plugins.policies": (5, "policies"),
    "tts_plugins._trace": (4, "trace"),
    "tts_plugins.verifiers._free": (4, "free"),  # their common base
    "tts_plugins.verifiers.callable": (5, "functions"),  # whatever takes a verifier takes a function
    "tts_plugins._calls": (5, "calls"),
    "tts_plugins._http": (5, "http"),
    "tts_plugins.options": (5, "options"),
    "tts_plugins.models": (6, "models"),
    "tts_plugins.verifiers": (6, "verifiers"),
    "tts_plugins.metering": (7, "metering"),
    "tts_plugins.profiles": (7, "profiles"),
    "tts_plugins.viewer": (6, "viewer"),
    "tts_plugins.engine._": (6, "runs"),  # all of its private modules: they know no model and no verifier by name
    "tts_plugins.engine": (8, "engine"),  # `solve` takes a profile by its name
    "tts_plugins.testing": (9, "testing"),
    "tts_plugins.bench": (9, "bench"),
    "tts_plugins.batch": (9, "batch"),
    "tts_plugins.demo": (9, "demo"),
    "tts_plugins.adapters": (9, "adapters"),
    "tts_plugins.server": (9, "server"),
    "tts_plugins.distributed": (10, "distributed"),  # what stands below it, on more than one machine
    "tts_plugins.cli": (11, "cli"),
    "tts_plugins.__main__": (12, "main"),
    "tts_plugins": (12, "names"),  # the public names, over all of it
}
# A sync method of the user is called on these threads; below this row nothing runs anywhere.
THREADS_FROM = 5
PURE = {"asyncio", "threading", "time", "random", "socket", "http", "urllib", "subprocess"}
PURE_BUT = {"tts_plugins.answers": {"threading"},
            "tts_plugins._internal.http_errors": {"urllib"},  # its parser of addresses only
            "tts_plugins._internal.http_limits": {"urllib"},
            "tts_plugins._internal.secrets": {"urllib"},
            "tts_plugins.pools._pool": {"random"}}  # fmt: skip
LEAVES = {"forks", "running_code", "thread_pool", "threads", "wait_graph", "untrusted", "request_sent"}
WRAPPERS = {"tts_plugins._internal.signatures"}  # of coroutine functions, which they only await
BELOW_LEAVES = {"forks", "running_code", "thread_pool"}
FRAMEWORKS = {"langchain", "langchain_core", "langchain_openai", "langgraph", "dspy", "litellm"}
OPTIONAL = {"openai", "httpx", "httpx2", "xllamacpp", "jsonschema", "jsonschema_specifications", "referencing",
            "genai_prices", "math_verify", "rich", "typer", "aiohttp", "opentelemetry", "torch", "transformers",
             "safetensors", "huggingface_hub", "sklearn", "datasets", "reasoning_gym", "resvg_py",
            "any_llm", "anthropic", "google", "boto3", "botocore",
            "starlette", "uvicorn", "prometheus_client", "redis", "ray", "pyarrow", "pandas"}  # fmt: skip
# Imported by nobody at the top of a module: what they need may stand at their own top.
LAZY = ("tts_plugins._http.exchange", "tts_plugins._http.pool", "tts_plugins.cli._",
        "tts_plugins.cli.doctor", "tts_plugins.demo", "tts_plugins.testing.loopback",
        "tts_plugins.models._llama_cpp.server_process", "tts_plugins.server.", "tts_plugins.viewer.app")  # fmt: skip


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    top: bool  # runs when the module is imported
    typing: bool  # stands under `if TYPE_CHECKING`


def imports(source: str, names: set[str], package: str) -> Iterator[Import]:
    """Every import of a source, relative ones resolved, and `from package import module` as the module."""
    yield from _walk(ast.parse(source), names, package, top=True, typing=False)


def _walk(node: ast.AST, names: set[str], package: str, *, top: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, top, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*parents, *([child.module] if child.module else [])])
            for alias in child.names:
                full = f"{base}.{alias.name}"
                yield Import(full if full in names else base, child.lineno, top, typing)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _walk(ast.Module([part], []), names, package, top=top, typing=True)
            for part in child.orelse:
                yield from _walk(ast.Module([part], []), names, package, top=top, typing=typing)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, names, package, top=top and not inside, typing=typing)


def row(module: str) -> tuple[int, str]:
    begins = {prefix: prefix if prefix.endswith("._") else f"{prefix}." for prefix in ROWS}
    known = [prefix for prefix, beginning in begins.items() if module == prefix or module.startswith(beginning)]
    best = max(known, key=len)
    if best == "tts_plugins" and module != "tts_plugins":
        raise AssertionError(f"{module} stands in no row: give it one in tests/test_layers.py")
    return ROWS[best]


def violations(name: str, source: str, names: set[str], *, is_package: bool = False) -> list[str]:
    """What a module imports and should not, in words."""
    out: list[str] = []
    package = name if is_package else name.rpartition(".")[0]
    mine, part = row(name)
    for found in imports(source, names, package):
        where, top = f"{name}:{found.line}: {found.module}", found.module.partition(".")[0]
        if top == "tts_plugins":
            theirs, other = row(found.module)
            above = theirs < mine or (part == other and (theirs == mine))
            leaf = part in LEAVES and other not in BELOW_LEAVES
            if leaf or (other in ("threads", "thread_pool") and 2 < mine < THREADS_FROM):
                above = False
            if not above:
                out.append(f"{where} is in row {theirs} ({other}), not above row {mine} ({part})")
        elif top in FRAMEWORKS or top.startswith("tts_plugins_"):
            out.append(f"{where}: the core imports no framework")
        elif top in OPTIONAL and found.top and not found.typing and not name.startswith(LAZY):
            out.append(f"{where}: import optional dependencies where they are used")
        elif _is_pure(mine, part) and not found.typing and top in PURE - _allowed(name):
            out.append(f"{where}: no clock, no threads, no randomness and no network below the engine")
    return out


def _is_pure(floor: int, part: str) -> bool:
    return (floor <= 4 or part == "policies") and part not in {*LEAVES, "trace"}


def _allowed(name: str) -> set[str]:
    return next((names for prefix, names in PURE_BUT.items() if name == prefix or name.startswith(prefix + ".")), set())


def modules(root: Path, prefix: str) -> dict[str, tuple[Path, bool]]:
    out = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = path.name == "__init__.py"
        out[".".join([prefix, *parts[: -1 if is_package else None]])] = (path, is_package)
    return out


MODULES = modules(PACKAGE, "tts_plugins")


@pytest.mark.parametrize("name", list(MODULES))
def test_imports_come_from_above(name: str) -> None:
    path, is_package = MODULES[name]
    assert violations(name, path.read_text("utf-8"), set(MODULES), is_package=is_package) == []


def test_pure_rows_do_not_await() -> None:
    for name, (path, _) in MODULES.items():
        if row(name)[0] <= 2 and row(name)[1] not in LEAVES and name not in WRAPPERS:
            awaiting = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.AsyncFunctionDef)]
            assert not awaiting, f"{name} is pure, and has an async function"


def every_module() -> dict[str, tuple[Path, bool]]:
    """Those of the core and of the integrations, by name."""
    out = dict(MODULES)
    for folder in sorted(INTEGRATIONS.iterdir()) if INTEGRATIONS.is_dir() else []:
        if (folder / "__init__.py").exists():
            out.update(modules(folder, folder.name))
    return out


def graph(sources: Mapping[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Who imports whom. `TYPE_CHECKING` counts, since a reader follows it too.

    What a package re-exports is not followed: `from package import name` counts as an import of the package.
    """
    names, out = set(sources), {}
    for name, (source, is_package) in sources.items():
        package = name if is_package else name.rpartition(".")[0]
        found = {each.module for each in imports(source, names, package)}
        out[name] = {module for module in found if module in names and module != name}
    return out


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def test_no_modules_import_each_other() -> None:
    sources = {name: (path.read_text("utf-8"), is_package) for name, (path, is_package) in every_module().items()}
    assert circles(graph(sources)) == []


def test_a_planted_circle_is_caught() -> None:
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p import a"
    sources = {
        "p": ("", True),
        "p.a": ("from p.b import f", False),
        "p.b": ("import p.c", False),
        "p.c": (typing, False),
    }
    assert circles(graph(sources)) == [["p.a", "p.b", "p.c"]]
    assert circles(graph({**sources, "p.c": ("", False)})) == []


def private_owner(module: str) -> str | None:
    """The package inside which a module is private: `a.b` for `a.b._c` and for `a.b._c.d`."""
    parts = module.split(".")
    first = next((i for i, part in enumerate(parts) if part.startswith("_") and not part.endswith("__")), None)
    return None if first is None else ".".join(parts[:first])


def test_private_modules_stay_in_their_package() -> None:
    found = set()
    for name, (path, is_package) in MODULES.items():
        package = name if is_package else name.rpartition(".")[0]
        for each in imports(path.read_text("utf-8"), set(MODULES), package):
            owner = private_owner(each.module) if each.module.startswith("tts_plugins") else None
            if owner is not None and not f"{package}.".startswith(f"{owner}."):
                found.add((name, each.module))
    assert found == set()


# A public package's own names stand over it, so its folder may be fuller: it is the table of contents.
MOST_FILES, MOST_AT_THE_TOP = 15, 18
COMMANDS = PACKAGE / "cli" / "_commands"  # a file for each command: a table of contents too


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    for root in (PACKAGE, *(f for f in INTEGRATIONS.iterdir() if (f / "__init__.py").exists())):
        for folder in (root, *(f for f in root.rglob("*") if f.is_dir())):
            count = len(list(folder.glob("*.py")))
            assert count <= (MOST_AT_THE_TOP if folder in (PACKAGE, COMMANDS) else MOST_FILES), (
                f"{folder} has {count} files"
            )


def test_integrations_use_public_names_only() -> None:
    for path in sorted(INTEGRATIONS.rglob("*.py")) if INTEGRATIONS.is_dir() else []:
        for found in imports(path.read_text("utf-8"), set(MODULES), path.parent.name):
            if found.module.startswith("tts_plugins."):
                private = [part for part in found.module.split(".") if part.startswith("_")]
                assert not private, f"{path.name}:{found.line}: {found.module} is private"


# The checker itself, on planted sources

NAMES = {"tts_plugins", "tts_plugins.engine", "tts_plugins.engine._run", "tts_plugins.types", "tts_plugins.stopping",
         "tts_plugins.models", "tts_plugins.strategies"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tts_plugins.types", "from tts_plugins.budget import Budget"),
        ("tts_plugins.selection", "def f():\n    from tts_plugins.engine import solve"),
        ("tts_plugins.selection", "import tts_plugins.engine._run"),
        ("tts_plugins.selection", "from tts_plugins import engine"),
        ("tts_plugins.selection", "import tts_plugins"),
        ("tts_plugins.strategies.beam", "from tts_plugins import solve"),
        ("tts_plugins.strategies.beam", "from ..engine import solve"),
        ("tts_plugins.strategies.beam", "from .. import engine"),
        ("tts_plugins.strategies.beam", "import asyncio"),
        ("tts_plugins.strategies.beam", "def f():\n    import time"),
        ("tts_plugins.strategies.beam", "from tts_plugins._internal.threads import call_user"),
        ("tts_plugins._internal.threads", "from tts_plugins.types import Problem"),
        ("tts_plugins.engine._run", "from tts_plugins.models import CallableModel"),
        ("tts_plugins.models.callable", "try:\n    import tts_plugins.engine\nexcept ImportError:\n    pass"),
        ("tts_plugins.verifiers.judges.llm_judge", "from tts_plugins.models.replay import recorded_answer"),
        ("tts_plugins.protocols", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tts_plugins.engine"),
        ("tts_plugins.models.x", "import openai"),
        ("tts_plugins.models.x", "from openai.types import Completion"),
        ("tts_plugins.models.x", "class A:\n    import openai"),
        ("tts_plugins.models.x", "if True:\n    import rich"),
        ("tts_plugins.models.x", "if TYPE_CHECKING:\n    pass\nelse:\n    import openai"),
        ("tts_plugins.models.x", "def f():\n    import langchain_core.messages"),
        ("tts_plugins.engine.x", "import dspy"),
        ("tts_plugins.engine.x", "def f():\n    from tts_plugins_langchain import scale"),
        ("tts_plugins.bench.x", "from tts_plugins.cli import main"),
        ("tts_plugins.models.x", "from tts_plugins.testing import ScriptedModel"),
        ("tts_plugins.bench.x", "from tts_plugins.server import app"),
    ],
)  # fmt: skip
def test_a_planted_violation_is_caught(name: str, source: str) -> None:
    assert len(violations(name, source, NAMES)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tts_plugins.selection", "from tts_plugins.types import Scored\nimport math"),
        ("tts_plugins.strategies.beam", "from ..stopping import Rule\nfrom . import best_of_n"),
        ("tts_plugins.models.x", "def f():\n    import openai\n    from tts_plugins._internal.threads import f"),
        ("tts_plugins.models.x", "if TYPE_CHECKING:\n    from openai import AsyncOpenAI"),
        ("tts_plugins.engine.solve", "import asyncio, time\nfrom tts_plugins.engine._run import SolveRun"),
        ("tts_plugins.testing.loopback", "import aiohttp"),
        ("tts_plugins.cli._app", "import typer\nfrom tts_plugins.engine import solve\nimport tts_plugins.demo"),
    ],
)  # fmt: skip
def test_what_is_allowed_passes(name: str, source: str) -> None:
    assert violations(name, source, NAMES) == []


def test_a_package_s_own_relative_imports_are_resolved() -> None:
    assert violations("tts_plugins.strategies", "from ..engine import solve", NAMES, is_package=True) != []
    assert violations("tts_plugins.strategies", "from .best_of_n import BestOfN", NAMES, is_package=True) == []


def test_a_module_without_a_row_is_an_error() -> None:
    with pytest.raises(AssertionError, match="stands in no row"):
        violations("tts_plugins.brand_new", "", NAMES)
