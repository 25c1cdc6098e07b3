"""The driver alone: its memory over many results, and an address that is not there."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._ray.work import perfect, scripted
from benchmarks._rows import Row
from tts_plugins import BestOfN, Result, solve_stream
from tts_plugins.distributed import Factory, RayEngine


async def _stream(count: int) -> list[float]:
    """Megabytes of this process, at each tenth of the way."""
    sizes: list[float] = []
    engine = RayEngine(workers=2, in_flight=64)
    stream = solve_stream(
        (f"What is {i} + 1?" for i in range(count)), model=Factory(scripted), strategy=BestOfN(n=1), verifier=perfect,
        engine=engine,
    )  # fmt: skip
    seen = 0
    with tempfile.TemporaryFile("w") as file:
        async for number, result in stream:
            assert isinstance(result, Result)
            file.write(json.dumps([number, result.text, result.usage.to_dict()]) + "\n")
            seen += 1
            if seen % (count // 10) == 0:
                sizes.append(_megabytes())
    return sizes


def _megabytes() -> float:
    """What this process alone has in memory; its part of Ray's object store, which is shared, is not counted."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not say")


def memory_row(count: int) -> Row:
    """Whether it stays as it is after the first fifth."""
    started = time.monotonic()
    sizes = asyncio.run(_stream(count))
    growth, rate = max(sizes[2:]) - sizes[1], count / (time.monotonic() - started)
    return Row(
        number=6, what=f"memory of the driver over {count:,} results streamed to a file", must="flat",
        met=growth <= 0.05 * sizes[1] + 2, ours=f"{sizes[1]:.0f} MB at a fifth, {sizes[-1]:.0f} MB at the end, most "
        f"{max(sizes):.0f}; {rate:.0f} results a second", figures={"megabytes": sizes, "a_second": rate},
    )  # fmt: skip


_NOBODY = """
import asyncio, sys
from tts_plugins import solve_many
from tts_plugins.distributed import Factory, RayEngine
from benchmarks._ray.work import scripted
try:
    asyncio.run(solve_many(["q"], model=Factory(scripted), engine=RayEngine(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, error)
"""


def address_row() -> Row:
    """A port where nobody listens, one that says nothing, and a name that is none."""
    with socket.socket() as silent, socket.socket() as closed:
        for each in (silent, closed):
            each.bind(("127.0.0.1", 0))
        silent.listen()
        ports = [each.getsockname()[1] for each in (closed, silent)]
        seconds, said = [], []
        for address in (
            *(f"127.0.0.1:{port}" for port in ports),
            f"ray://127.0.0.1:{ports[0]}",
            "nowhere.invalid:6379",
        ):
            started = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", _NOBODY, address], capture_output=True, text=True, timeout=300, check=False
            )
            seconds.append(time.monotonic() - started)
            said.append(done.stdout.strip())
    clear = all(text.startswith("ConfigurationError") and "nothing answers there" in text for text in said)
    return Row(
        number=7, what="an address that is not there, the process's start included", must="a clear error within 10 s",
        met=clear and max(seconds) <= 10, ours=f"{max(seconds):.1f} s at most; {said[0][:80]}…",
        figures={"seconds": seconds, "said": said},
    )  # fmt: skip
