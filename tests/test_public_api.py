"""What others may type: it imports, it is documented, it leaks nothing, and it costs little to import."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tts_plugins
from tests import ranges

ROOT = Path(tts_plugins.__file__).parent
# Their own dependencies are extras; each has tests of its own where those are installed.
EXTRAS = {"aiohttp", "rich", "typer", "xllamacpp", "jsonschema"}


def _public() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages([str(ROOT)], "tts_plugins.")]
    return ["tts_plugins", *(n for n in found if not any(part.startswith("_") for part in n.split(".")))]


PUBLIC = _public()


def load(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRAS:
            pytest.skip(f"{error.name} is not installed")
        raise


def names_of(module: types.ModuleType) -> list[str]:
    """What `__all__` says, else what the module itself defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def things(name: str) -> Iterator[tuple[str, Any]]:
    module = load(name)
    for each in names_of(module):
        yield f"{name}.{each}", getattr(module, each)


def test_the_names_that_others_will_type() -> None:
    for name in ("Budget", "Ledger", "Problem", "Result", "solve", "solve_sync", "solve_many", "solve_events",
                 "BestOfN", "SelfConsistency"):  # fmt: skip
        assert name in tts_plugins.__all__
    from tts_plugins.ledger import Hold, Ledger
    from tts_plugins.models import (
        CallableModel,
        EmbeddingModel,
        LocalEmbeddingModel,
        LocalModel,
        OpenAICompatibleModel,
    )
    from tts_plugins.stopping import BetaConfident, Threshold, Unanimous, VoteDecided, VoteLead
    from tts_plugins.types import Candidate, Scored, Usage
    from tts_plugins.verifiers import (
        AnswerAgreement,
        CallableVerifier,
        JSONSchemaVerifier,
        LearnedVerifier,
        ProcessVerifierTransformers,
    )

    assert all(inspect.isclass(c) for c in (Hold, Ledger, CallableModel, LocalModel, OpenAICompatibleModel, Threshold,
               VoteDecided, VoteLead, BetaConfident, Unanimous, Candidate, Scored, Usage, AnswerAgreement,
               CallableVerifier, JSONSchemaVerifier, LearnedVerifier, ProcessVerifierTransformers, EmbeddingModel,
               LocalEmbeddingModel))  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_all_is_whole_and_leaks_nothing_private(name: str) -> None:
    module = load(name)
    exported = names_of(module)
    assert len(set(exported)) == len(exported)
    for each in exported:
        assert hasattr(module, each), f"{name}.__all__ names {each}, which is not there"
        assert each == "__version__" or not each.startswith("_"), f"{name}.{each} is private"
        if hasattr(module, "__all__"):
            value = getattr(module, each)
            assert not isinstance(value, types.ModuleType), f"{name}.{each} is a module"
    if hasattr(module, "__all__") and module.__file__ and module.__file__.endswith("__init__.py"):
        shown = {n for n, v in vars(module).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
        origin = {n for n in shown if getattr(getattr(module, n), "__module__", "").startswith("tts_plugins")}
        assert origin <= set(exported), f"{name} shows {sorted(origin - set(exported))} beside its __all__"


@pytest.mark.parametrize("name", PUBLIC)
def test_all_that_is_public_is_documented(name: str) -> None:
    module = load(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    for where, thing in things(name):
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        assert _documented(thing), f"{where} has no docstring"
        for each, value in vars(thing).items() if inspect.isclass(thing) else ():
            if each.startswith("_") or not isinstance(
                value, types.FunctionType | property | classmethod | staticmethod
            ):
                continue
            inherited = [vars(base).get(each) for base in thing.__mro__]
            one_word = getattr(thing, "_is_protocol", False)  # `name`, `seed`: the protocol's own text says it
            assert one_word or any(_documented(v) for v in inherited if v is not None), f"{where}.{each}: no docstring"


def _documented(thing: Any) -> bool:
    text = (getattr(thing, "__doc__", None) or "").strip()
    # dataclasses write their signature where there is nothing else
    return bool(text) and not (inspect.isclass(thing) and text.startswith(f"{thing.__name__}("))


def test_dataclasses_are_frozen() -> None:
    seen = 0
    for name in PUBLIC:
        try:
            found = list(things(name))
        except pytest.skip.Exception:
            continue
        for where, thing in found:
            if inspect.isclass(thing) and dataclasses.is_dataclass(thing) and "testing" not in where:
                seen += 1
                assert thing.__dataclass_params__.frozen, f"{where} can be changed after it was made"  # type: ignore[attr-defined]
    assert seen > 15


def test_a_frozen_dataclass_stays_frozen() -> None:
    budget = tts_plugins.Budget(calls=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        budget.calls = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del tts_plugins.BestOfN().n  # type: ignore[misc]


def test_the_package_is_typed_and_has_one_version() -> None:
    assert (ROOT / "py.typed").is_file()
    version = tts_plugins.__version__
    assert version and all(part.isdigit() for part in version.split(".")[:2])


HEAVY = {"openai", "numpy", "rich", "typer", "jsonschema", "xllamacpp", "aiohttp", "genai_prices", "httpx", "pydantic",
         "opentelemetry", "torch", "transformers", "datasets", "ray", "pyarrow", "pandas",
         "langchain_core", "langgraph", "dspy", "importlib.metadata"}  # fmt: skip


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT.parent).stdout


def test_importing_it_brings_nothing_heavy() -> None:
    parts = [
        "tts_plugins",
        "tts_plugins.models",
        "tts_plugins.verifiers",
        "tts_plugins.stopping",
        "tts_plugins.testing",
    ]
    loaded = run(f"import sys, {', '.join(parts)}; print(' '.join(sys.modules))").split()
    # tenacity looks for tornado and trio by metadata of its own; nothing of ours does.
    assert not (HEAVY - {"importlib.metadata"}) & set(loaded)


@pytest.mark.parametrize(
    ("name", "needs", "without"),
    [
        # seconds each, and of no use to most who import these
        ("tts_plugins_langchain", "langchain_core", {"langchain", "langgraph", "openai", "dspy", "litellm"}),
        ("tts_plugins_dspy", "dspy", {"litellm", "langchain_core", "langgraph"}),
        ("tts_plugins_openai", "openai", {"langchain_core", "langgraph", "dspy", "litellm"}),
    ],
)
def test_an_integration_brings_its_own_framework_alone(name: str, needs: str, without: set[str]) -> None:
    pytest.importorskip(needs)
    loaded = set(run(f"import sys; sys.path.insert(0, 'integrations'); import {name}; print(*sys.modules)").split())
    assert needs in loaded and not without & loaded


@pytest.mark.parametrize(
    ("code", "missing", "extra"),
    [
        ("import tts_plugins_langchain", "langchain_core", "langchain"),
        ("from tts_plugins_langchain import TestTimeScaling", "langchain", "langchain"),
        ("from tts_plugins_langchain import TestTimeScaling", "langgraph", "langchain"),
        ("import tts_plugins_dspy", "dspy", "dspy"),
        *(("from tts_plugins.server import serve", name, "server") for name in ("starlette", "uvicorn", "aiohttp")),
        ("from tts_plugins.server import create_app", "prometheus_client", "server"),
    ],
)
def test_what_is_not_installed_names_the_extra(code: str, missing: str, extra: str) -> None:
    if missing in ("langchain", "langgraph"):
        pytest.importorskip("langchain_core")
    said = run(
        f"import sys; sys.path.insert(0, 'integrations'); sys.modules[{missing!r}] = None\n"  # as if it were not there
        f"try:\n    {code}\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    )
    assert said.startswith("MissingExtraError ") and f"pip install 'tts-plugins[{extra}]'" in said


def test_all_is_every_extra_that_is_light() -> None:
    extras = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def whole(name: str) -> set[str]:
        found = set[str]()
        for line in extras[name]:
            inner = re.fullmatch(r"tts-plugins\[(.+)\]", line)
            found |= {line} if inner is None else {each for part in inner[1].split(",") for each in whole(part)}
        return found

    packages = {re.split(r"[^\w-]", line)[0] for line in whole("all")}
    assert not {"torch", "ray", "transformers", "datasets"} & packages
    named = set(extras) - {"all", "dev", "docs", "testing", "demo", "bench", "transformers", "providers", "ray"}
    assert {each for name in named for each in whole(name)} == whole("all"), "all the others are in it"


def test_both_ends_of_the_supported_versions_are_those_of_pyproject() -> None:
    lowest, tests = ranges.requirements("lowest")
    bounds = {**ranges.stated(), **ranges.stated("langchain", "dspy")}
    openai = bounds.pop("openai")  # LangChain's package for it asks for a newer one
    assert f"openai=={re.split('[>=,]+', openai)[1]}" in ranges.requirements("openai1")[0]
    assert {f"{name}=={re.split('[>=,]+', bound)[1]}" for name, bound in bounds.items()} <= set(lowest)
    assert any("dspy" in pattern for pattern in tests)
    newest, tests = ranges.requirements("openai3")
    assert "openai>=3,<4" in newest and not any("dspy" in each for each in (*newest, *tests))
    for pattern in tests:
        assert list(ranges.ROOT.glob(pattern)), f"{pattern} finds no test"


def test_importing_it_is_quick() -> None:
    # Against what its dependencies cost in the same run: how fast or how busy the machine is says nothing of us.
    # One thread for numpy's algebra: starting as many as there are cores costs more than all else of its import.
    code = "import os, time; os.environ['OMP_NUM_THREADS'] = '1'; t = time.process_time()\n"
    code += "import {}; print(time.process_time() - t)"
    runs = [[float(run(code.format(what))) for what in ("tts_plugins", "numpy, ssl")] for _ in range(5)]
    ours, theirs = (min(times) for times in zip(*runs, strict=True))
    assert ours < 4 * theirs, f"import tts_plugins took {ours:.3f} s of CPU, import numpy, ssl {theirs:.3f}"


def test_importing_it_loads_few_modules() -> None:
    loaded = run("import sys, tts_plugins; print(*(m for m in sys.modules if m.startswith('tts_plugins')))").split()
    assert len(loaded) <= 100, f"import tts_plugins loads {len(loaded)} modules of its own: import lazily what few need"
