"""A small model with a verifier against a larger model's one answer, live: `python -m benchmarks.edge --help`.

    python -m benchmarks.edge --small embedded --large gemma-3-270m-q4_k_m.gguf --problems benchmarks/demo_heldout.jsonl

Each problem is solved in each way by both models, one after the other, on as many threads as asked for. Problems are
orders with their `record`, checked by a program that sees the message alone; or those of HumanEval (`prompt`, `test`,
`entry_point`), checked by the examples of the docstring. Right is what equals the record, or passes the hidden tests.

FLOPs are 2 N a token, a prompt counted once for each request, also where the server had it; N is the GGUF's. Joules
are the processor's, where the machine tells (RAPL). A line is written for each solve: run the command again to go on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._edge.arms import ARMS, Arm
from benchmarks._edge.questions import Question, read_questions
from benchmarks._edge.table import show
from tts_plugins import Ledger, Result, solve
from tts_plugins.errors import ConfigurationError, TTSError
from tts_plugins.models import LocalModel

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One solve: who is right, and what it cost."""

    problem: str
    arm: str
    right: bool
    passed: bool
    calls: int
    tokens: dict[str, int]  # by model
    flops: float
    seconds: float
    joules: float | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The models, cold and warm, and how many parameters each has."""

    models: Mapping[tuple[str, bool], LocalModel]
    parameters: Mapping[str, float]
    names: Mapping[str, str] = field(default_factory=dict)


def main(arguments: list[str] | None = None) -> int:
    """Run what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edge", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--small", required=True, metavar="GGUF", help="the small model; 'embedded' for the demo's")
    parser.add_argument("--large", required=True, metavar="GGUF", help="the larger model; 'embedded' for the demo's")
    parser.add_argument(
        "--problems", required=True, type=Path, metavar="FILE", help="a JSON line for each problem; or demo"
    )
    parser.add_argument("--out", type=Path, default=Path("edge.jsonl"), metavar="FILE", help="what was run, to go on")
    parser.add_argument("--limit", type=int, metavar="N", help="of the problems, the first ones")
    parser.add_argument("--minutes", type=float, metavar="X", help="begin no further problem after so long")
    parser.add_argument("--arm", action="append", choices=[arm.name for arm in ARMS], help="those ways alone")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the processor, for each model")
    parser.add_argument("--max-tokens", type=int, default=96, metavar="N", help="of an answer")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="X", help="of samples")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all solves")
    parser.add_argument("--table", action="store_true", help="print the table of what was run, and run nothing")
    given = parser.parse_args(arguments)
    try:
        lines = asyncio.run(_run(given)) if not given.table else _read(given.out, None)
    except TTSError as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2
    show([asdict(line) for line in lines])
    return 0


async def _run(given: argparse.Namespace) -> list[Line]:
    questions = read_questions(given.problems)[: given.limit]
    settings = {
        "small": _file(given.small), "large": _file(given.large), "problems": given.problems.name,
        "max_tokens": given.max_tokens, "temperature": given.temperature, "seed": given.seed,
        "threads": given.threads,
    }  # fmt: skip
    lines, start = _read(given.out, settings), time.monotonic()
    done = {(line.problem, line.arm) for line in lines}
    arms = [arm for arm in ARMS if not given.arm or arm.name in given.arm]
    wanted = [q for q in questions if any((q.id, arm.name) not in done for arm in arms)]
    if not wanted:
        return lines
    stage = _stage(given)
    try:
        for number, question in enumerate(wanted, 1):
            if given.minutes is not None and time.monotonic() - start > 60 * given.minutes:
                print(f"{given.minutes:g} minutes are over after {number - 1} problems; run again to go on")
                break
            for arm in arms:
                if (question.id, arm.name) not in done:
                    lines.append(await _solved(question, arm, stage, given.seed))
                    _append(given.out, asdict(lines[-1]))
            right = sum(line.right for line in lines if line.problem == question.id)
            took = time.monotonic() - start
            print(f"{number} of {len(wanted)} problems, {right} arms right, {took:.0f} s", file=sys.stderr, flush=True)
    finally:
        for model in stage.models.values():
            await model.aclose()
    return lines


def _stage(given: argparse.Namespace) -> Stage:
    models: dict[tuple[str, bool], LocalModel] = {}
    parameters: dict[str, float] = {}
    for size, path in (("small", given.small), ("large", given.large)):
        for greedy in (True, False):
            models[size, greedy] = LocalModel(
                None if path == "embedded" else path, temperature=0.0 if greedy else given.temperature,
                max_tokens=given.max_tokens, threads=given.threads, slots=1 if greedy else 4, context=2048,
            )  # fmt: skip
        if size == "large" and models[size, True].name == models["small", True].name:
            raise ConfigurationError(
                f"--small {given.small} and --large {given.large} go by one name, {models[size, True].name}; their "
                "tokens could not be told apart: give two models, in files of different names"
            )
        models[size, True].start()
        parameters[size] = _parameters(models[size, True])
        print(f"{size}: {_file(path)}, {parameters[size] / 1e6:.1f} M parameters", file=sys.stderr)
    return Stage(models=models, parameters=parameters)


def _parameters(model: LocalModel) -> float:
    """Return how many parameters the server says its GGUF has."""
    with urllib.request.urlopen(f"{model.base_url.rstrip('/')}/models", timeout=60) as reply:
        listed: Any = json.load(reply)
    return float(listed["data"][0]["meta"]["n_params"])


async def _solved(question: Question, arm: Arm, stage: Stage, seed: int) -> Line:
    model = stage.models[arm.size, arm.greedy]
    verifier = question.verifier if arm.checked else None
    before, started, error, result, account = _energy(), time.perf_counter(), "", None, Ledger()
    try:
        result = await solve(
            question.problem(), model=model, verifier=verifier, answer=question.answer, seed=seed, budget=account,
            strategy=arm.strategy(stage.models["large", True], stage.models["small", False], question.checkable),
        )  # fmt: skip
    except ConfigurationError:
        raise
    except TTSError as failed:
        error = f"{type(failed).__name__}: {failed}"
    seconds = time.perf_counter() - started
    after = _energy()
    # Of a solve that failed nobody tells which model was paid for what: all of it is taken as its own model's.
    tokens = {arm.size: account.usage.tokens} if result is None else _tokens(result, stage)
    text = "" if result is None else result.text
    return Line(
        problem=question.id, arm=arm.name, right=result is not None and await question.right(text),
        passed=result is not None and await question.passes(text), calls=account.usage.calls,
        tokens=tokens, flops=sum(2 * stage.parameters[size] * count for size, count in tokens.items()),
        seconds=round(seconds, 3), joules=_joules(before, after), error=error,
    )  # fmt: skip


def _tokens(result: Result | None, stage: Stage) -> dict[str, int]:
    """Return the tokens that each model read and wrote; a prompt counts once for each request, cached or not."""
    names = {model.name: size for (size, _), model in stage.models.items()}
    out: dict[str, int] = {}
    for event in result.trace if result is not None else ():
        usage = event.get("usage")
        if event["kind"] == "request" and isinstance(usage, Mapping):
            size = names[event["model"]]
            out[size] = out.get(size, 0) + int(usage["tokens"])
    return out


def _energy() -> int | None:
    try:
        return int(_RAPL.read_text())
    except (OSError, ValueError):
        return None


def _joules(before: int | None, after: int | None) -> float | None:
    # The counter starts over now and then: that solve has no figure.
    return None if before is None or after is None or after < before else round((after - before) / 1e6, 2)


def _file(path: str) -> str:
    return path if path == "embedded" else Path(path).name


def _read(path: Path, settings: Mapping[str, Any] | None) -> list[Line]:
    """Return what was run before; begin the file if there is none.

    Raises:
        ConfigurationError: it was made with other settings, or is something else.
    """
    if not path.exists():
        if settings is None:
            raise ConfigurationError(f"--out {path}: there is no such file; run the benchmark first")
        _append(path, {"edge": 1, "settings": settings})
        return []
    lines = [found for line in path.read_text(encoding="utf-8").splitlines() if (found := _json(line)) is not None]
    head = lines[0] if lines else {}
    if head.get("edge") != 1:
        raise ConfigurationError(f"--out {path}: this is not a file of this benchmark; choose another")
    if settings is not None and head["settings"] != settings:
        names = sorted(n for n in settings if settings[n] != head["settings"].get(n))
        raise ConfigurationError(f"--out {path}: it was begun with other settings ({', '.join(names)}); choose another")
    return [Line(**line) for line in lines[1:]]


def _json(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None  # the last line of a run that was killed while it wrote
    return found if isinstance(found, dict) else None


def _append(path: Path, row: Mapping[str, Any]) -> None:
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(row) + "\n")
        file.flush()


if __name__ == "__main__":
    sys.exit(main())
