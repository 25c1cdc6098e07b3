"""A small model's beams beside a larger model's single answer, on the same problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tts_plugins.bench.analysis.flops import inference
from tts_plugins.metrics import Estimate, expected_best, expected_majority, expected_weighted, paired_bootstrap
from tts_plugins.pools import Pool, PoolProblem

SMALL, LARGE, VERIFIER = 3.2e9, 8.0e9, 8.0e9  # parameters


def by_choice(problem: PoolProblem) -> dict[str, float]:
    """The expectation over ties of each way to choose."""
    answers = [c.answer for c in problem.candidates]
    scores = [c.scored("last") or 0.0 for c in problem.candidates]
    correct = [bool(c.correct) for c in problem.candidates]
    return {
        "single (mean)": sum(correct) / len(correct),
        "majority": expected_majority(answers, correct),
        "best by score": expected_best(scores, correct),
        "weighted": expected_weighted(answers, scores, correct),
    }


def beams(folder: Path) -> tuple[list[str], dict[str, float]]:
    """The lines of the two tables, and their figures."""
    lines, figures = ['beams, process verifier, aggregate "last", expectation over ties'], dict[str, float]()
    tables: dict[str, Mapping[str, dict[str, float]]] = {}
    for name in ("math_beam16_prm_llama32_3b", "math_beam3_prm_llama32_3b", "math_single_prm_llama32_3b",
                 "math_single_prm_llama31_8b"):  # fmt: skip
        pool = Pool.read(folder / f"{name}.jsonl.gz")
        tables[name] = {p.id: by_choice(p) for p in pool.problems}
        means = {way: sum(t[way] for t in tables[name].values()) / len(tables[name]) for way in
                 ("single (mean)", "majority", "best by score", "weighted")}  # fmt: skip
        figures |= {f"{name}/{way}": value for way, value in means.items()}
        lines.append(f"  {name:30} " + "  ".join(f"{way} {value:.3f}" for way, value in means.items()))
    lines.append("  seen in the issue: 16 beams weighted 0.630, best by score 0.558; 3 beams weighted 0.508; 8B 0.402")
    small, large = tables["math_beam3_prm_llama32_3b"], tables["math_single_prm_llama31_8b"]
    paired = paired_bootstrap([[row["weighted"]] for row in small.values()],
                              [[large[key]["single (mean)"]] for key in small])  # fmt: skip
    figures |= {"3B three beams weighted - 8B single": paired.value, "low": paired.low, "high": paired.high}
    lines.append(f"  3B, three beams, weighted - 8B, one answer, same {len(small)} problems, paired: {_signed(paired)}")
    return lines + _flops(folder), figures


def _flops(folder: Path) -> list[str]:
    pools = [Pool.read(folder / f"math_single_prm_llama{m}.jsonl.gz") for m in ("32_3b", "31_8b")]
    small, large = (
        sum(c.tokens or 0 for p in pool.problems for c in p.candidates) / len(pool.problems) for pool in pools
    )
    alone = inference(LARGE, large)
    lines = [f"  FLOPs of three beams / of the 8B model's answer ({large:.0f} tokens); beams have no token counts, so:"]
    for length in (small, large, 2 * large):
        generated, read = inference(SMALL, 3 * length), inference(VERIFIER, 3 * length)
        lines.append(
            f"    a beam of {length:.0f} tokens: {generated / alone:.2f} without the verifier, "
            f"{(generated + read) / alone:.2f} with it; dropped continuations, which were not recorded, come on top"
        )
    return lines


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})"
