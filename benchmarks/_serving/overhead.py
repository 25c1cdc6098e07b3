"""Row 8: what the engine itself takes where the work takes nothing, and what importing it takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks._rows import Row, Sizes
from tts_plugins import BestOfN, Budget, solve
from tts_plugins.testing import ScriptedModel, TableVerifier

_PROBE = (
    "import sys, time; t = time.perf_counter(); import tts_plugins; "
    "print(time.perf_counter() - t, 'openai' in sys.modules)"
)


async def local(sizes: Sizes) -> list[Row]:
    """Solves a second of n=16 with a model and a verifier that answer at once; the import in fresh interpreters."""
    model = ScriptedModel([f"The answer is {i}" for i in range(16)])
    verifier = TableVerifier({}, default=0.5)

    async def some(count: int) -> float:
        start = time.process_time()
        for seed in range(count):
            await solve(
                "2 + 2?", model=model, verifier=verifier, strategy=BestOfN(n=16), seed=seed,
                budget=Budget(calls=100, tokens=10_000),
            )  # fmt: skip
        return (time.process_time() - start) / count

    await some(max(1, sizes.local // 10))
    each = await some(sizes.local)
    imports = [_import() for _ in range(sizes.imports + 1)][1:]
    seconds, loaded = statistics.median(s for s, _ in imports), any(with_openai for _, with_openai in imports)
    return [
        Row(number=8, what="solve of n=16, model and verifier answer at once: solves a second of CPU",
            ours=f"{1 / each:.0f}; {1e6 * each / 16:.0f} us a candidate", figures={"seconds": each}),
        Row(number=8, what="import tts_plugins; without openai", must="<= 0.3 s", met=seconds <= 0.3 and not loaded,
            ours=f"{seconds:.3f} s; {'with' if loaded else 'without'}", figures={"seconds": seconds}),
    ]  # fmt: skip


def _import() -> tuple[float, bool]:
    out = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), out[1] == "True"
