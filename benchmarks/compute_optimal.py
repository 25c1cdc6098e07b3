"""What stopping rules save on recorded samples: `python -m benchmarks.compute_optimal [--short] [--pools DIR]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._files import write_json
from benchmarks._pools.beams import beams
from benchmarks._pools.checks import examples, game24
from benchmarks._pools.frontier import Ground, Measured, cheapest, frontier, joined, undominated
from benchmarks._pools.policy import policies
from tts_plugins import BestOfN, SelfConsistency
from tts_plugins.bench import replay
from tts_plugins.policies import LearnedStopping
from tts_plugins.pools import Pool
from tts_plugins.selection import Select
from tts_plugins.verifiers.recorded import RecordedVerifier

BELOW = (0.005, 0.01, 0.02)
TARGETS = (0.01,)  # for a rule that is fitted to a target, which takes longest
PRICES = tuple(10 ** (e / 12) for e in (*range(-38, -18, 2), *range(-18, -3)))  # of a mean candidate, in accuracy


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pool, how it is chosen on, and what the issue saw there."""

    pool: str
    n: int
    select: Select
    seen: str


CASES = (
    Case(pool="math_llama31_8b", n=40, select="majority",
         seen="fixed 0.625; lead-3 0.621 at 15.5 samples; BetaConfident(0.95) 0.625 at 21.4"),
    Case(pool="math_llama31_8b_prm_resampled", n=40, select="weighted",
         seen="fixed 0.666; lead-3 in weight 0.661 at 18.0; a crude learned rule 0.663 at 12.7"),
    Case(pool="humaneval_codegen16b", n=64, select="best", seen="fixed 0.620; first that passes 0.621 at 18.8 samples"),
    Case(pool="game24_gpt4", n=64, select="best", seen="pass@64 0.437; stop at the first that passes"),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; returns 1 where there are no pools."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compute_optimal", description=__doc__)
    parser.add_argument("--pools", default="../shared/pools", metavar="DIR", help="where the recorded samples lie")
    parser.add_argument("--short", action="store_true", help="few orders, one pool of each kind but no programs run")
    parser.add_argument("--only", default="", metavar="POOLS", help="names, such as game24_gpt4,beams")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tts-plugins" / "benchmarks"
    parser.add_argument("--cache", default=cache, type=Path, metavar="DIR", help="where results of programs are kept")
    given = parser.parse_args(arguments)
    folder = Path(given.pools)
    if not folder.is_dir():
        print(f"no folder {folder}; give the recorded samples' place with --pools DIR", file=sys.stderr)
        return 1
    only = {name for name in given.only.split(",") if name}
    reported: dict[str, Any] = {}
    for case in CASES:
        if (only and case.pool not in only) or (given.short and not only and case.pool == "humaneval_codegen16b"):
            continue
        start = time.perf_counter()
        reported[case.pool] = study(case, _pool(case, folder, given.cache), orders=4 if given.short else 40)
        print(f"  ({time.perf_counter() - start:.0f} s)\n", flush=True)
    if not only or "beams" in only:
        lines, reported["beams"] = beams(folder)
        print("\n".join(lines))
    if given.json:
        write_json(given.json, {"short": given.short, **reported})
    return 0


def _pool(case: Case, folder: Path, cache: Path) -> Pool:
    pool = Pool.read(folder / f"{case.pool}.jsonl.gz")
    if case.pool.startswith("game24"):
        return game24(pool)
    return examples(pool, cache) if case.pool.startswith("humaneval") else pool


def study(case: Case, pool: Pool, *, orders: int) -> dict[str, Any]:
    """Print a pool's tables; its figures."""
    folds = pool.split(2, seed=0)
    grounds = [Ground(fold, case.n, case.select, orders=orders, seed=100 + i) for i, fold in enumerate(folds)]
    print(f"{case.pool}: {len(pool.problems)} problems, cap {case.n}, select {case.select}, {orders} orders, 2 folds")
    print(f"  in the issue: {case.seen}")
    full = joined("fixed", [g.fixed(case.n) for g in grounds])
    tables = [g.simple() for g in grounds]
    simple = [
        joined(name, [g.measure(name, t[name]) for g, t in zip(grounds, tables, strict=True)]) for name in tables[0]
    ]
    rules = [_rules(folds[1 - i], case, orders) for i in (0, 1)]
    learned = [joined(f"learned {p:.2g}", [g.learned(r[i]) for g, r in zip(grounds, rules, strict=True)])
               for i, p in enumerate(PRICES)]  # fmt: skip
    seer = joined("clairvoyant", [g.clairvoyant() for g in grounds])
    rows = [full, *_known(simple, case), *frontier(learned), seer]
    print(f"  {'':34}{'accuracy':>9}{'samples':>9}{'tokens':>8}{'fixed/it':>9}")
    for m in rows:
        print(f"  {m.name:34}{m.accuracy:9.4f}{m.samples.mean():9.2f}{m.cost:8.0f}{full.cost / m.cost:9.2f}")
    out: dict[str, Any] = {"settings": [_figures(m) for m in (full, *simple, *learned, seer)]}
    out["ratios"] = _ratios(full, simple, learned, seer, dict(zip(tables[0], simple, strict=True)), grounds, tables)
    for mixed in (False, True):
        left = undominated(simple, learned, mixed=mixed)
        shown = ", ".join(f"{m.name} ({m.accuracy:.4f}, {m.cost:.0f})" for m in left) or "none"
        print(
            f"  of {len(simple)} simple settings, not matched by a learned one{' or a mix' if mixed else ''}: {shown}"
        )
        out[f"undominated{' mixed' if mixed else ''}"] = [_figures(m) for m in left]
    out["policy"] = policies(folds, full, case.n, orders=orders)
    out["target"] = _targets(case, folds, grounds, full)
    out["engine"] = _engine(case, folds, rules, learned, full, orders)
    return out


def _rules(fold: Pool, case: Case, orders: int) -> tuple[LearnedStopping, ...]:
    tokens = [c.tokens or 0 for p in fold.problems for c in p.candidates]
    unit = sum(tokens) / len(tokens)
    return LearnedStopping.frontier(
        fold, n=case.n, select=case.select, prices=[p / unit for p in PRICES], orders=min(orders, 20), seed=7
    )


def _known(simple: Sequence[Measured], case: Case) -> list[Measured]:
    """The simple rules that the issue names, and those of the frontier."""
    lead = "VoteLead(3, weighted)" if case.select == "weighted" else "VoteLead(3)"
    named = {lead, "BetaConfident(0.95)", "Unanimous(4)", "VoteDecided"}
    best = {m.name for m in frontier(simple) if m.accuracy > 0.9 * max(s.accuracy for s in simple)}
    out = [m for m in simple if m.name in named | best]
    return sorted(out, key=lambda m: m.cost)


def _ratios(
    full: Measured, simple: Sequence[Measured], learned: Sequence[Measured], seer: Measured,
    by_name: dict[str, Measured], grounds: Sequence[Ground], tables: Sequence[Any],
) -> list[dict[str, Any]]:  # fmt: skip
    print("  tokens of fixed / of each, the cheapest setting at most so far below fixed (paired 95 % intervals)")
    out = []
    for below in BELOW:
        one, other = cheapest(simple, full.accuracy - below), cheapest(learned, full.accuracy - below)
        row: dict[str, Any] = {"below": below}
        parts = [f"  -{below}:"]
        for kind, m in (("simple", one), ("learned", other)):
            if m is None:
                parts.append(f"{kind}: none reaches it;")
                continue
            row[kind] = {**_figures(m), "ratio": vars(m.saved(full)), "over": vars(m.over(full))}
            parts.append(f"{kind} {m.saved(full)} [{m.name}, {m.accuracy:.4f}];")
        if one is not None and other is not None:
            row["learned/simple"] = vars(other.saved(one))
            span = one.cost - seer.cost
            row["closed"] = (one.cost - other.cost) / span if span > 0 else None
            reported = joined("told", [g.knows_hopeless(t[one.name], one.name)
                                   for g, t in zip(grounds, tables, strict=True)])  # fmt: skip
            row["told hopeless"] = vars(reported.saved(full))
            parts.append(f"simple/learned {other.saved(one)}; simple told the hopeless {reported.saved(full)}; ")
            parts.append(f"of the way from simple to clairvoyant {row['closed'] or 0:.0%}")
        print(" ".join(parts))
        out.append(row)
    print(f"  clairvoyant: {seer.saved(full)} at {seer.accuracy:.4f}")
    return out


def _targets(case: Case, folds: Sequence[Pool], grounds: Sequence[Ground], full: Measured) -> list[dict[str, Any]]:
    """What a user gets who names a target: the price chosen inside the fold, measured on the other."""
    out = []
    for below in TARGETS:
        fitted = [LearnedStopping.fit(folds[1 - i], n=case.n, select=case.select, target=below) for i in (0, 1)]
        m = joined(f"target {below}", [g.learned(r) for g, r in zip(grounds, fitted, strict=True)])
        print(f"  fit(target={below}): {m.accuracy:.4f}, to fixed {m.over(full)}; fixed/it in tokens {m.saved(full)}")
        out.append({**_figures(m), "over": vars(m.over(full)), "ratio": vars(m.saved(full))})
    return out


def _engine(
    case: Case, folds: Sequence[Pool], rules: Sequence[Sequence[LearnedStopping]], learned: Sequence[Measured],
    full: Measured, orders: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """The setting at -0.005 again, through the real engine: one by one, and in the waves that are the default."""
    chosen = cheapest(learned, full.accuracy - 0.005)
    if chosen is None:
        return []
    place, out = [m.name for m in learned].index(chosen.name), []
    for wave in (1, None):
        found = [asyncio.run(_replayed(case, folds[i], rules[i][place], wave, min(orders, 10))) for i in (0, 1)]
        accuracy, samples, tokens, count = np.sum(found, axis=0)
        name = "one by one" if wave else "default waves"
        print(f"  engine, {chosen.name}, {name}: accuracy {accuracy / count:.4f}, samples {samples / count:.2f}, "
              f"tokens {tokens / count:.0f}")  # fmt: skip
        out.append({"wave": wave, "accuracy": accuracy / count, "samples": samples / count, "tokens": tokens / count})
    return out


async def _replayed(case: Case, fold: Pool, rule: LearnedStopping, wave: int | None, orders: int) -> list[float]:
    strategy: SelfConsistency | BestOfN
    if case.select == "majority":
        strategy = SelfConsistency(n=case.n, stop=rule, wave=wave)
    else:
        strategy = BestOfN(n=case.n, select="best" if case.select == "best" else "weighted", stop=rule, wave=wave)
    verifier = None if case.select == "majority" else RecordedVerifier()
    r = await replay(fold, strategy, verifier, orders=orders)
    k = len(r.by_problem)
    return [r.accuracy.value * k, r.samples.value * k, r.tokens.value * k, float(k)]


def _figures(m: Measured) -> dict[str, Any]:
    return {"name": m.name, "accuracy": m.accuracy, "samples": float(m.samples.mean()), "tokens": m.cost}


if __name__ == "__main__":
    sys.exit(main())
