"""A verifier trained on the embedded model's own rollouts, and what it is worth on problems that it has not seen.

    python -m benchmarks.learned_verifier [--vectors FILE] [--folds 4] [--json FILE]
    python -m benchmarks.learned_verifier --sample FILE [--limit N]

The task is the demo's: who ordered what, and how many, in three lines, which are the steps; a program grades the
outcome. 8 solutions of each problem, 4 continuations from each step: those of 58 messages, drawn from the 128, lie
beside this file; `--sample` makes them anew, for all or the first N, into a file that is taken up where it ended. The
vectors are kept in a file where one is named. Each problem is scored by a verifier that was trained on the other folds,
so that the figures are over all problems, and none was seen in training.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._pools import order_lines as task
from tts_plugins.bench.analysis.heldout import Heldout, measure
from tts_plugins.bench.rollouts import make_rollouts
from tts_plugins.models import LocalEmbeddingModel
from tts_plugins.pools import Pool, PoolProblem, problem_line
from tts_plugins.selection import Aggregate
from tts_plugins.verifiers import LearnedHead
from tts_plugins.verifiers.learned import labelled
from tts_plugins.verifiers.learned._features import LENGTHS, SURE, Table

SOLUTIONS, ROLLOUTS = 8, 4
COLUMNS = ("x", "labels", "problem", "solution")
MADE = Path(__file__).with_name("learned_rollouts.jsonl.gz")
HOW: tuple[Aggregate, ...] = ("last", "min", "prod", "mean")


async def sampled(path: Path, limit: int | None, threads: int | None) -> Pool:
    """The rollouts, made as far as they are not in the file."""
    problems = task.problems()
    random.Random(0).shuffle(problems)  # so that the first ones are of every kind
    model = task.model(threads)
    try:
        return await make_rollouts(
            problems[:limit], model=model, path=path, grade=task.grade, answer=task.answer, solutions=SOLUTIONS,
            rollouts=ROLLOUTS, max_steps=6, concurrency=1, dataset="orders in lines", on_problem=_tell,
        )  # fmt: skip
    finally:
        await model.aclose()


def _tell(problem: PoolProblem) -> None:
    print(f"{problem.id}: {sum(bool(c.correct) for c in problem.candidates)} of {len(problem.candidates)} right")


def embedded(pool: Pool, kept: Path | None, threads: int | None) -> Table:
    """The features of all beginnings; from the file where it holds those of these rollouts."""
    key = hashlib.sha256(b"".join(map(problem_line, pool.problems))).hexdigest()
    if kept is not None and kept.exists():
        with np.load(kept, allow_pickle=False) as file:
            if str(file["key"]) == key:
                return Table(**{name: file[name] for name in COLUMNS}, logprobs=True)
    made = asyncio.run(_embedded(pool, threads))
    if kept is not None:
        partial = kept.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, key=np.array(key), **{name: getattr(made, name) for name in COLUMNS})
        partial.replace(kept)
    return made


async def _embedded(pool: Pool, threads: int | None) -> Table:
    source = LocalEmbeddingModel(threads=threads)
    try:
        return await labelled(pool, source, lambda done, total: print(f"{done} of {total} embedded", flush=True))
    finally:
        await source.aclose()


def blocks(table: Table) -> Iterator[tuple[str, Table]]:
    """The features, all and in parts; those left out are zero, which weighs nothing."""
    own = np.arange(table.x.shape[1]) < LENGTHS + SURE
    yield "all", table
    yield "length and log-probabilities", replace(table, x=np.where(own, table.x, 0.0))
    yield "vector", replace(table, x=np.where(own, 0.0, table.x))


def crossed(pool: Pool, table: Table, how: Aggregate, folds: int) -> Heldout:
    """Each problem scored by the verifier of the other folds."""
    places = np.random.default_rng(0).permutation(len(pool.problems))
    scores: dict[int, list[tuple[float, ...]]] = {}
    for fold in range(folds):
        out = set(map(int, places[fold::folds]))
        train = [i for i in range(len(pool.problems)) if i not in out]
        head = LearnedHead.of(table.of(train), embedding="SmolLM2-135M-Instruct, last", aggregate=how)
        scores |= {i: head.predicted(table, i) for i in out}
    return measure(pool.problems, [scores[i] for i in range(len(pool.problems))], how)


def main(given: argparse.Namespace) -> None:
    """Make what is missing, and print the figures."""
    pool = asyncio.run(sampled(given.sample, given.limit, given.threads)) if given.sample else Pool.read(MADE)
    pool = replace(pool, problems=tuple(p for p in pool.problems if p.candidates))
    table = embedded(pool, given.vectors, given.threads)
    figures = {}
    for name, part in blocks(table):
        for how in HOW if name == "all" else HOW[:1]:
            found = crossed(pool, part, how, given.folds)
            figures[f"{name}, {how}"] = found.to_dict()
            print(f"\n# {name}, {how}\n{found.text() if (name, how) == ('all', 'last') else _short(found)}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def _short(found: Heldout) -> str:
    return (
        f"AUC {found.auc}; in a problem {found.auc_within}; chosen: verifier {found.accuracy['verifier']}, "
        f"weighted {found.accuracy['weighted']}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
