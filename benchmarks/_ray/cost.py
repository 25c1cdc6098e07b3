"""What Ray adds: CPU beside the local engine's, and throughput beside bare processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._ray.work import Timed, over_http, perfect, scripted
from benchmarks._rows import Row, Spread
from tts_plugins import BestOfN
from tts_plugins.batch import BatchWork
from tts_plugins.batch import Row as Problem_
from tts_plugins.distributed import Factory, RayEngine, Solve
from tts_plugins.engine import LocalEngine
from tts_plugins.engine.many import Solves
from tts_plugins.testing.loopback import LoopbackServer

_BARE = """
import asyncio, sys, time
from benchmarks._ray.cost import replay
sys.stdin.readline()
print(*asyncio.run(replay(int(sys.argv[1]))), flush=True)
"""
_ALONE = """
import asyncio, sys
from benchmarks._ray.cost import local
print(*asyncio.run(local(sys.argv[1], int(sys.argv[2]))))
"""


def settings(model: Any) -> Any:
    """Best-of-4 with a verifier that costs nothing."""
    return {"model": model, "strategy": BestOfN(n=4), "verifier": perfect, "profile": None}


def jobs(count: int) -> list[tuple[str, int]]:
    """Problems with their seeds."""
    return [(f"What is {i} + 1?", i) for i in range(count)]


async def _drain(engine: Any, work: Any, count: int) -> tuple[float, float]:
    """CPU of this process, and wall seconds."""
    cpu, wall, seen = time.process_time(), time.monotonic(), 0
    async for _, value in engine.run(jobs(count), work):
        if isinstance(value, BaseException):
            raise value
        seen += 1
    assert seen == count
    return time.process_time() - cpu, time.monotonic() - wall


async def _ray(base_url: str, count: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        work = Timed(Solves(settings(Factory(over_http, base_url))), Path(folder))
        driver, wall = await _drain(RayEngine(workers=1, in_flight=64), work, count)
        return driver, _written(Path(folder)), wall


def _written(folder: Path) -> float:
    return sum(float(file.read_text()) for file in folder.glob("cpu-*"))


async def local(base_url: str, count: int) -> tuple[float, float]:
    """CPU and wall seconds of the local engine in this process."""
    return await _drain(LocalEngine(64), Solves(settings(Factory(over_http, base_url))), count)


def _alone(base_url: str, count: int) -> tuple[float, float]:
    """The local engine in a process of its own, as new as a worker's, and without what Ray imports."""
    command = [sys.executable, "-c", _ALONE, base_url, str(count)]
    cpu, wall = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(cpu), float(wall)


def cpu_row(count: int, pairs: int) -> Row:
    """One worker beside the local engine, taking turns; of each process all CPU from the making of its model on."""
    ratios, walls, drivers, workers, each = [], [], [], [], []
    with LoopbackServer(process=True, reply="The answer is 4.", latency=0.05) as server:
        for number in range(pairs):
            parts: dict[str, Any] = {}
            for name in ("local", "ray") if number % 2 else ("ray", "local"):
                ray_s = name == "ray"
                parts[name] = asyncio.run(_ray(server.base_url, count)) if ray_s else _alone(server.base_url, count)
            driver, worker, wall = parts["ray"]
            cpu, local_wall = parts["local"]
            ratios.append((driver + worker) / cpu)
            walls.append(wall / local_wall)
            drivers.append(1000 * driver / count)
            workers.append(1000 * worker / count)
            each.append(1000 * cpu / count)
    ratio, ms = Spread.of(ratios), [Spread.of(kind).median for kind in (workers, drivers, each)]
    return Row(
        number=1, what=f"{count:,} solves of Best-of-4, one worker: CPU of worker and driver / local engine's",
        must="<= 1.15", met=ratio.median <= 1.15,
        ours=f"{ratio}; wall {Spread.of(walls).median:.2f}; ms of CPU a solve: worker {ms[0]:.2f}, driver {ms[1]:.2f}, "
        f"local engine {ms[2]:.2f}",
        figures={"ratios": ratios, "walls": walls, "driver_ms_a_solve": drivers, "worker_ms_a_solve": workers,
                 "local_ms_a_solve": each},
    )  # fmt: skip


def replays() -> BatchWork:
    """Solves without a server that come to rows, as those of a batch or of a benchmark do."""
    given = {name: value for name, value in settings(Factory(scripted)).items() if name != "profile"}
    return BatchWork(given)


async def replay(count: int) -> tuple[float, float]:
    """Solves a second here, without a server, after the first tenth; and CPU seconds of all of them."""
    started = time.process_time()
    return await _rate(LocalEngine(64), replays(), count), time.process_time() - started


async def _rate(engine: Any, work: Any, count: int) -> float:
    warm, seen, since = count // 10, 0, 0.0
    rows = [Problem_(f"q{i}", problem, {}, "") for i, (problem, _) in enumerate(jobs(count))]
    async for _, value in engine.run(rows, work):
        assert value["calls"] == 4
        seen += 1
        if seen == warm:
            since = time.monotonic()
    return (count - warm) / (time.monotonic() - since)


def replay_row(count: int, pairs: int) -> Row:
    """Two workers beside two bare processes; and the CPU of the workers and the driver beside theirs."""
    ratios, rates, cpus = [], [], []
    for number in range(pairs):
        found = {}
        for name in ("bare", "ray") if number % 2 else ("ray", "bare"):
            found[name] = _two_workers(count) if name == "ray" else _bare(count // 2)
        (rate, cpu), (bare_rate, bare_cpu) = found["ray"], found["bare"]
        ratios.append(rate / bare_rate)
        rates.append(bare_rate / 2)
        cpus.append(bare_cpu / cpu)
    ratio = Spread.of(ratios)
    return Row(
        number=2, what="CPU-bound replay: two workers / two bare processes, solves a second", must=">= 0.9",
        met=ratio.median >= 0.9, ours=f"{ratio}; by CPU {Spread.of(cpus)}; bare {Spread.of(rates).median:.0f} a second "
        "a core", figures={"ratios": ratios, "bare_a_second_a_core": rates, "cpu_ratios": cpus},
    )  # fmt: skip


def _two_workers(count: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        work, driver = Timed(replays(), Path(folder)), time.process_time()
        rate = asyncio.run(_rate(RayEngine(workers=2, in_flight=64), work, count))
        return rate, time.process_time() - driver + _written(Path(folder))


def _bare(count: int) -> tuple[float, float]:
    """Two processes that begin together; the sums of their rates and of their CPU seconds."""
    command = [sys.executable, "-c", _BARE, str(count)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(3)  # both have imported what they need
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    rates, cpus = zip(*(map(float, process.communicate()[0].split()) for process in both), strict=True)
    return sum(rates), sum(cpus)


def data_row(count: int) -> Row:
    """Ray Data, stated apart: rows leave it by block."""
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    with LoopbackServer(process=True, reply="The answer is 4.", latency=0.05) as server:
        given = {key: value for key, value in settings(Factory(over_http, server.base_url)).items() if key != "profile"}
        started, one = time.monotonic(), ray.data.ActorPoolStrategy(size=1)
        found = (
            ray.data.from_items([{"prompt": problem} for problem, _ in jobs(count)])
            .map_batches(Solve, batch_size=64, compute=one, num_cpus=1, fn_constructor_kwargs=given)
            .take_all()
        )
        wall = time.monotonic() - started
    assert len(found) == count
    return Row(number=3, what=f"Ray Data: {count:,} solves by map_batches(Solve), its start included",
               ours=f"{count / wall:.0f} a second", figures={"wall_s": wall})  # fmt: skip
