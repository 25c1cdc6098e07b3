"""DSPy's own tests, with a search in the place of what they test: `python -m benchmarks.peers_dspy DIR [--json FILE]`.

DIR is a checkout of DSPy's repository, with the tests of the version that `--python` has installed, or of one before:

    git clone --branch 3.3.1 https://github.com/stanfordnlp/dspy DIR

Each kind of replacement runs the same files twice, bare and replaced, and counts the tests that pass bare and fail
replaced. Every search has one candidate, since scripted models have one answer for each call.

    short     `dspy.BestOfN` and `dspy.Refine` are those of this package
    programs  every program that is called, streamed or evaluated is called through `Scaled`
    models    every language model that is configured is wrapped in `ScaledLM`
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks._rows import Row

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    *("adapters", "callback", "clients", "core", "evaluate", "examples", "flex", "predict", "primitives", "propose"),
    *("retrievers", "signatures", "streaming", "teleprompt", "utils"),
)
"""All of DSPy's tests but those that need a server or a key."""
FILES = {"short": ("predict/test_best_of_n.py", "predict/test_refine.py"), "programs": FOLDERS, "models": FOLDERS}
_OUTER = "the searched program is a module in another one, of which callbacks hear too"
REFUSED = {
    "test_active_id": "a program that returns None has no output to choose, which is an error",
    "test_callback_complex_module": _OUTER,
    "test_callback_async_module": _OUTER,
    "test_tool_calls": _OUTER,
    "test_nested_optimizer_and_module_callbacks_preserve_hierarchy": _OUTER,
    "test_parallel_program_callbacks_are_children_of_evaluate_callback": _OUTER,
    "test_parallel_children_inherit_parent_callback_call_id": "callbacks hear of a candidate's own copy of the program",
    "test_batch_evaluate_is_parallel_and_preserves_context": "the configured model is the one that searches",
    "test_bridged_lm_failure_keeps_its_type_across_the_boundary": "the cause of what is raised is an "
    "AllCandidatesFailed, which has the cause that the exception had",
    "test_python_interpreter_lm_request_bytes": "candidates are sampled, at temperature 1.0",
}
"""Tests of behaviour that this package does not have on purpose, and what it does instead; see docs/dspy.md."""
_KIND, _OUT = "TTS_PEERS_KIND", "TTS_PEERS_OUT"


# The plugin: it runs in the process of DSPy's tests.


def pytest_configure(config: Any) -> None:
    """Replace what the kind says, before any test is imported."""
    replace: dict[str, Callable[[], None]] = {"short": _short, "programs": _programs, "models": _models}
    if (kind := os.environ.get(_KIND, "")) in replace:
        replace[kind]()


def pytest_runtest_logreport(report: Any) -> None:
    """Write the outcome down; a test fails with its setup too."""
    if os.environ.get(_OUT) and (report.when == "call" or report.outcome != "passed"):
        why = str(report.longrepr).strip().splitlines()[-1:] if report.outcome == "failed" else []
        with open(os.environ[_OUT], "a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, report.outcome, *why]) + "\n")


def _short() -> None:
    import dspy
    import dspy.predict.best_of_n
    import dspy.predict.refine
    import tts_plugins_dspy as ours

    for name, module in (("BestOfN", dspy.predict.best_of_n), ("Refine", dspy.predict.refine)):
        for place in (dspy, dspy.predict, module):
            setattr(place, name, getattr(ours, name))


def _programs() -> None:
    import dspy
    from tts_plugins_dspy import Scaled
    from tts_plugins_dspy._calls.scope import scope_here

    plain, aplain = dspy.Module.__call__, dspy.Module.acall

    def outermost(module: Any) -> bool:
        return scope_here() is None and not isinstance(module, Scaled)

    @functools.wraps(plain)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not outermost(self):
            return plain(self, *args, **kwargs)
        return plain(Scaled(self, n=1), *args, **kwargs)

    @functools.wraps(aplain)
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not outermost(self):
            return await aplain(self, *args, **kwargs)
        return await aplain(Scaled(self, n=1), *args, **kwargs)

    dspy.Module.__call__, dspy.Module.acall = call, acall


def _models() -> None:
    import dspy
    from tts_plugins_dspy import ScaledLM

    def searched(settings: dict[str, Any]) -> dict[str, Any]:
        lm = settings.get("lm")
        wrapped = issubclass(type(lm), dspy.BaseLM) and not isinstance(lm, ScaledLM)  # no mock of one
        return {**settings, "lm": ScaledLM(lm, n=1)} if wrapped else settings

    kind = type(dspy.settings)
    for name in ("configure", "context"):
        plain = getattr(kind, name)

        def method(self: Any, _plain: Any = plain, **settings: Any) -> Any:
            return _plain(self, **searched(settings))

        setattr(kind, name, functools.wraps(plain)(method))
    dspy.configure, dspy.context = dspy.settings.configure, dspy.settings.context


# The command.


def outcomes(place: Path, python: str, files: Sequence[str], kind: str, timeout: float) -> dict[str, list[str]]:
    """Run DSPy's tests, and return each one's outcome and the last line of its failure.

    Each folder has a process of its own, so that a test that hangs or ends its process costs no other folder.
    """
    found = {}
    paths = os.pathsep.join(map(str, (place, ROOT, ROOT / "integrations")))
    tools = os.pathsep.join((str(Path(python).parent), os.environ.get("PATH", "")))  # some tests start `litellm`
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "outcomes.jsonl"
            environment = {**os.environ, "PYTHONPATH": paths, "PATH": tools, _KIND: kind, _OUT: str(out)}
            command = [python, "-m", "pytest", "-q", "--continue-on-collection-errors", "-p", "benchmarks.peers_dspy"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*command, f"tests/{file}"], cwd=place, env=environment, check=False, timeout=timeout,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
        found.update({name: rest for name, *rest in map(json.loads, lines)})
    return found


def measure(place: Path, python: str, kinds: Sequence[str], timeout: float) -> Iterator[Row]:
    """One row for each kind, as soon as it is measured."""
    run = functools.cache(functools.partial(outcomes, place, python, timeout=timeout))  # kinds share the bare run
    for number, kind in enumerate(kinds, start=1):
        files = tuple(file for file in FILES[kind] if (place / "tests" / file).exists())
        bare, ours = run(files, ""), run(files, kind)
        passed = [name for name, (outcome, *_) in bare.items() if outcome == "passed"]
        new = {name: ours.get(name, ["missing"]) for name in passed if ours.get(name, ["missing"])[0] != "passed"}
        unexplained = [name for name in new if name.split("::")[-1].split("[")[0] not in REFUSED]
        yield Row(
            number=number, what=f"DSPy's tests, {kind}: new failures of {len(passed)} that pass bare",
            must="documented refusals alone", ours=f"{len(new)}, of which {len(unexplained)} are not documented",
            met=bool(passed) and not unexplained, figures={"new": new, "passed": len(passed)},
        )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_dspy", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("dir", type=Path, help="a checkout of DSPy")
    parser.add_argument("--python", default=sys.executable, help="the Python of an environment with that version")
    parser.add_argument("--only", choices=list(FILES), action="append", help="one kind of replacement")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for the tests of one folder")
    parser.add_argument("--folder", action="append", help="one of the folders of tests; by default all of them")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    given = parser.parse_args(arguments)
    for kind in FILES if given.folder else ():
        FILES[kind] = tuple(given.folder)
    rows = []
    for row in measure(given.dir.resolve(), given.python, given.only or list(FILES), given.timeout):
        rows.append(row)
        print(f"{row.number}. {row.what}: {row.ours} (must: {row.must}) {'met' if row.met else 'NOT MET'}", flush=True)
        for name, why in row.figures["new"].items():
            print(f"     {name}: {' '.join(why):.160}")
    if given.json is not None:
        given.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1), encoding="utf-8")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
