"""What the DSPy integration must reach, measured: `python -m benchmarks.dspy [--short] [--json FILE]`.

"Bare" is the same requests sent at once through DSPy itself: 8 threads that call the same predictor with `rollout_id`s
of their own, each followed by the same function. Pairs are interleaved, and which of the two goes first alternates.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import dspy
from tts_plugins_dspy import Scaled

from benchmarks._rows import Row, Spread, table
from tts_plugins import BestOfN, Budget, Ledger
from tts_plugins.testing.loopback import LoopbackServer

N = 8
ANSWER = "[[ ## answer ## ]]\nit is so\n\n[[ ## completed ## ]]"


def numbered(body: dict[str, Any], index: int) -> str:
    """An answer that no other request gets."""
    return f"[[ ## answer ## ]]\nit is {index}\n\n[[ ## completed ## ]]"


def check(prediction: Any) -> float:
    """A verifier of microseconds."""
    return (len(prediction.answer) % 7) / 7


def model_of(server: LoopbackServer, **settings: Any) -> Any:
    """A real client of the server; its own retries are off."""
    settings = {"max_tokens": 64, "num_retries": 0, "temperature": 1.0, "cache": False, **settings}
    return dspy.LM("openai/m", api_base=server.base_url, api_key="-", **settings)


def walls(pairs: int, latency: float) -> tuple[list[float], list[float]]:
    """Seconds of ours and of bare, pair by pair."""
    host = LoopbackServer(reply=ANSWER, latency=latency, process=True, record=False)
    with host as server, ThreadPoolExecutor(N) as pool:
        program, lm = dspy.Predict("question -> answer"), model_of(server)
        scaled = Scaled(program, strategy=BestOfN(n=N), verifier=check, budget=Budget(calls=N))

        def ours() -> None:
            scaled(question="why?")

        def sample(i: int) -> tuple[float, int]:
            return check(program(question="why?", config={"rollout_id": i})), i

        def bare() -> None:
            contexts = [copy_context() for _ in range(N)]  # threads know nothing of the configuration otherwise
            max(pool.map(lambda i: contexts[i].run(sample, i), range(N)))

        def within(work: Callable[[], None]) -> float:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        with dspy.context(lm=lm):
            for _ in range(3):
                ours()
                bare()
            taken: dict[Callable[[], None], list[float]] = {ours: [], bare: []}
            for pair in range(pairs):
                for work in (ours, bare) if pair % 2 else (bare, ours):
                    taken[work].append(within(work))
        lm.close()
        return taken[ours], taken[bare]


def wall(short: bool) -> list[Row]:
    """Rows 1 and 2."""
    ours, bare = walls(3 if short else 15, 0.05)
    ratio = Spread.of([a / b for a, b in zip(ours, bare, strict=True)])
    rows = [
        Row(
            number=1, what="best-of-8 over a predictor, a function verifies, 50 ms: wall / 8 bare threads",
            must="<= 1.10", met=ratio.median <= 1.10,
            ours=f"{ratio}; {1e3 * Spread.of(ours).median:.1f} / {1e3 * Spread.of(bare).median:.1f} ms",
            figures={"ratio": vars(ratio), "ours_s": ours, "bare_s": bare},
        )
    ]  # fmt: skip
    latency = 0.1 if short else 0.5
    ours, bare = walls(1 if short else 15, latency)
    path, alone = Spread.of([a / latency for a in ours]), Spread.of([b / latency for b in bare])
    rows.append(
        Row(
            number=2, what=f"the same at {1e3 * latency:.0f} ms: wall / {1e3 * latency:.0f} ms", must="<= 1.15",
            met=path.median <= 1.15, ours=f"{path}; bare {alone.median:.3f}",
            figures={"ours": vars(path), "bare": vars(alone)},
        )
    )  # fmt: skip
    return rows


def nested() -> Row:
    """Row 3: requests of a search inside a search, and of the same again."""
    with LoopbackServer(reply=numbered, indexing="arrival") as server:
        lm = model_of(server, cache=True)
        scaled = Scaled(Scaled(dspy.Predict("question -> answer"), n=3), n=3)
        with dspy.context(lm=lm):
            scaled(question="nested?")
            first = server.counts.requests
            scaled(question="nested?")
        lm.close()
        ours = (first, server.counts.requests - first)
    return Row(
        number=3, what="nested 3x3: requests; on replay", must="9; 0", ours="{}; {}".format(*ours), met=ours == (9, 0)
    )


def demos() -> Row:
    """Row 4: the demos that BootstrapFewShot finds."""

    def reply(body: dict[str, Any], index: int) -> str:
        return f"[[ ## answer ## ]]\n{str(body['messages'][-1]['content']).count('x')}\n\n[[ ## completed ## ]]"

    def right(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(example.answer == prediction.answer)

    def found(module: Any) -> int:
        optimiser = dspy.BootstrapFewShot(metric=right, max_bootstrapped_demos=4, max_labeled_demos=0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (predictor,) = optimiser.compile(module, trainset=trainset).predictors()
        return len(predictor.demos)

    trainset = [dspy.Example(question="x" * i, answer=i).with_inputs("question") for i in range(1, 6)]
    with LoopbackServer(reply=reply) as server:
        lm = model_of(server)
        with dspy.context(lm=lm):
            bare = found(dspy.Predict("question -> answer: int"))
            ours = found(Scaled(dspy.Predict("question -> answer: int"), n=3))
        lm.close()
    return Row(
        number=4, what="BootstrapFewShot over the wrapped program: demos found", must=f"{bare}, as over the bare one",
        ours=str(ours), met=ours == bare > 0,
    )  # fmt: skip


def tokens() -> Row:
    """Row 5: tokens in the ledger over tokens that the server counted, cached and not."""
    ratios = []
    for cached in (False, True):
        with LoopbackServer(reply=numbered, indexing="arrival") as server:
            account, lm = Ledger(Budget(tokens=1_000_000)), model_of(server, cache=cached)
            scaled = Scaled(dspy.ChainOfThought("question -> answer"), n=4, budget=account)
            server.configure(reply=lambda body, i: f"[[ ## reasoning ## ]]\nr\n\n{numbered(body, i)}")
            with dspy.context(lm=lm):
                for question in ("a?", "b?", "a?"):
                    scaled(question=question)
            ratios.append(account.spent.tokens / server.wait().tokens)
            lm.close()
    return Row(
        number=5, what="tokens in the ledger / counted by the server, without and with DSPy's cache", must="1",
        ours=", ".join(f"{r:g}" for r in ratios), met=set(ratios) == {1.0},
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns 1 where a row is not met (never with --short, whose timings mean nothing)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dspy", description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that it runs; timings mean nothing")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    given = parser.parse_args(arguments)
    dspy.configure_cache(enable_disk_cache=False)
    rows = [*wall(given.short), nested(), demos(), tokens()]
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    print(f"{machine['cores']} cores, Python {machine['python']}, load {machine['load']:.1f}; medians (quartiles)\n")
    print(table(rows))
    if given.json:
        told = {"machine": machine, "short": given.short, "rows": [row.to_dict() for row in rows]}
        partial = Path(given.json + ".partial")
        partial.write_text(json.dumps(told, indent=1))
        partial.replace(given.json)
    return 0 if given.short or all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
