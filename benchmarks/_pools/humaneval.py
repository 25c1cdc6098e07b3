"""HumanEval with recorded samples: what running programs chooses, against chance, votes and the oracle."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._rows import Row, Spread
from tts_plugins.metrics import Estimate, clustered_bootstrap, expected_best, paired_bootstrap, pass_at_k
from tts_plugins.pools import Pool, PoolProblem
from tts_plugins.verifiers import CodeTests
from tts_plugins.verifiers.code._dual_agreement import dual_agreement, known_first

SIZES = (1, 4, 16, 64, 100)
RULES = ("random", "identical programs", "examples", "dual agreement", "both", "oracle")
TIMEOUT, TEST_TIMEOUT, MOST = 2.0, 0.25, 120


@dataclass(frozen=True)
class Tried:
    """What one sample's program did."""

    program: str
    known: tuple[bool, ...]
    written: tuple[bool, ...]
    correct: bool


async def humaneval(path: Path, cache: Path | None, problems: int | None, workers: int, draws: int) -> list[Row]:
    """Run what is not in the cache, then choose."""
    pool = Pool.read(path)
    chosen = pool.problems[:problems]
    store = Store(cache)
    with CodeTests(
        tests=[], timeout=TIMEOUT, test_timeout=TEST_TIMEOUT, workers=workers, program=lambda p, c: c.text
    ) as verifier:  # fmt: skip
        cost = await run_all(verifier, chosen, store, workers)
    tried = [[_tried(p, c.text or "", bool(c.correct), store) for c in p.candidates] for p in chosen]
    return [*choices(tried, draws), *costs(cost, chosen, store)]


class Store:
    """Outcomes by program, one line each; a line is written when its program has been run."""

    def __init__(self, path: Path | None) -> None:
        self._path, self.found = path, dict[str, tuple[str, float]]()
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the last line of a run that was ended in the middle of it
                self.found[entry["key"]] = (entry["passed"], entry["seconds"])

    def add(self, key: str, passed: str, seconds: float) -> None:
        """One program's outcome: a 1 for each test passed, else a 0."""
        self.found[key] = (passed, seconds)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"key": key, "passed": passed, "seconds": round(seconds, 5)}) + "\n")


async def run_all(
    verifier: CodeTests, problems: Sequence[PoolProblem], store: Store, workers: int
) -> Mapping[str, float]:
    """Each distinct program against the examples and the generated tests of its problem."""
    begin, ran = time.perf_counter(), 0
    for p in problems:
        todo = [t for t in dict.fromkeys(c.text or "" for c in p.candidates) if _key(p, t) not in store.found]
        known, written = _tests(p)
        room = asyncio.Semaphore(workers)  # so that the time of one holds no waiting

        async def one(text: str, p: PoolProblem = p, tests: Sequence[str] = (*known, *written),
                      room: asyncio.Semaphore = room) -> None:  # fmt: skip
            async with room:
                since = time.perf_counter()
                outcomes = await verifier.check(f"{p.prompt}{text}", tests)
                passed = "".join("0" if why else "1" for why in outcomes)
                store.add(_key(p, text), passed, time.perf_counter() - since)

        await asyncio.gather(*(one(t) for t in todo))
        ran += len(todo)
    return {"wall": time.perf_counter() - begin, "ran": ran}


def choices(tried: Sequence[Sequence[Tried]], draws: int) -> Iterator[Row]:
    """The share of problems solved by each rule, for each number of samples."""
    kept: dict[tuple[str, int], list[list[float]]] = {}
    for k in SIZES:
        for name in RULES:
            kept[name, k] = [list(_values(name, samples, k, draws)) for samples in tried]
            value = clustered_bootstrap(kept[name, k])
            must, met = _must(name, k, value, len(tried))
            yield Row(
                number=4, what=f"best of {k}, {name}", ours=str(value), must=must, met=met,
                figures={"value": value.value, "low": value.low, "high": value.high, "problems": len(tried)},
            )  # fmt: skip
    for ours in ("examples", "dual agreement", "both"):
        for other in ("random", "identical programs"):
            gain = paired_bootstrap(kept[ours, 100], kept[other, 100])
            needed = ours == "dual agreement" and len(tried) >= 100
            yield Row(
                number=5, what=f"best of 100, {ours} less {other}", ours=str(gain), must="> 0" if needed else "",
                met=gain.low > 0 if needed else None,
                figures={"value": gain.value, "low": gain.low, "high": gain.high},
            )  # fmt: skip


def costs(cost: Mapping[str, float], problems: Sequence[PoolProblem], store: Store) -> Iterator[Row]:
    """What running takes, in this call and over all that is in the cache."""
    programs = {_key(p, c.text or "") for p in problems for c in p.candidates}
    samples = sum(len(p.candidates) for p in problems)
    tests = [sum(map(len, _tests(p))) for p in problems]
    yield Row(
        number=6, what=f"running {int(cost['ran'])} of {len(programs)} programs ({samples} samples)",
        ours=f"{cost['wall']:.0f} s, {sum(tests) / len(tests):.0f} tests a problem", figures=dict(cost),
    )  # fmt: skip
    seconds = [store.found[key][1] for key in programs]
    spread = Spread.of(seconds)
    yield Row(
        number=6, what="one program against all of its tests, cached ones included",
        ours=f"{1000 * spread.median:.0f} ms ({1000 * spread.low:.0f} to {1000 * spread.high:.0f}); "
        f"{sum(seconds):.0f} s in all, {sum(seconds) / len(problems):.2f} s a problem",
        figures={"seconds": sum(seconds), "median": spread.median, "low": spread.low, "high": spread.high},
    )  # fmt: skip


def _must(name: str, k: int, value: Estimate, problems: int) -> tuple[str, bool | None]:
    known = {("random", 1): 0.224, ("random", 100): 0.224, ("oracle", 100): 0.744}.get((name, k))
    if known is None or problems < 164:
        return "", None
    return f"{known}", abs(value.value - known) < 0.002


def _values(name: str, samples: Sequence[Tried], k: int, draws: int) -> Iterator[float]:
    """Whether the chosen one is right, for each draw of k samples; ties by expectation."""
    n, right = len(samples), sum(s.correct for s in samples)
    k = min(k, n)
    if name == "random" or k == 1:
        yield right / n
    elif name == "oracle":
        yield pass_at_k(n, right, k)
    else:
        rng = random.Random(k)
        for _ in range(draws if k < n else 1):
            drawn = rng.sample(list(samples), k) if k < n else samples
            yield expected_best(_SCORES[name](drawn), [s.correct for s in drawn])


def _identical(samples: Sequence[Tried]) -> list[float]:
    votes = Counter(s.program for s in samples)
    return [float(votes[s.program]) for s in samples]


_SCORES: Mapping[str, Callable[[Sequence[Tried]], list[float]]] = {
    "identical programs": _identical,
    "examples": lambda samples: [sum(s.known) / max(1, len(s.known)) for s in samples],
    "dual agreement": lambda samples: dual_agreement([s.written for s in samples]),
    "both": lambda samples: known_first([s.known for s in samples], dual_agreement([s.written for s in samples])),
}


def _tests(problem: PoolProblem) -> tuple[list[str], list[str]]:
    known, written = (list(problem.extra.get(name) or ()) for name in ("examples", "generated_tests"))
    return known, written[:MOST]


def _key(problem: PoolProblem, text: str) -> str:
    return hashlib.blake2b(f"{problem.id}\0{text}".encode(), digest_size=12).hexdigest()


def _tried(problem: PoolProblem, text: str, correct: bool, store: Store) -> Tried:
    known, _ = _tests(problem)
    passed = [bit == "1" for bit in store.found[_key(problem, text)][0]]
    return Tried(text, tuple(passed[: len(known)]), tuple(passed[len(known) :]), correct)
