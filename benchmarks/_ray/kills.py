"""`kill -9` of a batch's worker, account and driver: what is acknowledged is neither lost nor paid again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks._rows import Row

_LONG = 600


def driver(folder: str, address: str) -> None:
    """The process that is killed: a batch, whose acknowledged rows are written down with their times."""
    import asyncio

    from benchmarks._ray.work import Logged, perfect
    from tts_plugins import BestOfN, Budget
    from tts_plugins.batch import BatchWork, Journal, read_rows, run_batch
    from tts_plugins.distributed import Factory, RayEngine

    home = Path(folder)
    acknowledged = os.open(home / "acknowledged", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    model = Factory(Logged, str(home / "calls"), 0.1)
    work = BatchWork({"model": model, "strategy": BestOfN(n=4), "verifier": perfect})
    engine = RayEngine(address, workers=2, in_flight=32, budget=Budget(calls=10**6), account=home / "account")
    with Journal(home / "journal", {}) as journal:
        journal.register(read_rows(home / "in.jsonl"))
        asyncio.run(
            run_batch(
                read_rows(home / "in.jsonl"), journal, work, engine=engine,
                on_result=lambda row: os.write(acknowledged, f"{time.monotonic()} {row['id']}\n".encode()),
            )
        )  # fmt: skip
        (home / "rows").write_text(json.dumps([row["id"] for row in journal.results()]))
    (home / "spent").write_text(json.dumps([engine.stats.spent.calls, engine.stats.repeated]))


def kills_row(count: int, times: int) -> Row:
    """Each of the three, so many times, in one batch each."""
    figures = dict[str, Counter[str]]()
    for number, (what, victim) in enumerate({"worker": _worker, "account": _account, "driver": _driver}.items()):
        rng, figures[what] = random.Random(number), Counter[str]()
        while (kills := figures[what]["kills"]) < times:  # an account restarts more slowly than a batch ends
            figures[what].update(_killed(count, times - kills, victim, rng))
    lost = sum(each["lost"] for each in figures.values())
    twice = sum(each["paid_twice"] for each in figures.values())
    hits = "; ".join(
        f"{what} {each['kills']} times, {each['repeated_calls']} calls repeated" for what, each in figures.items()
    )
    complete = all(each["complete"] == each["batches"] for each in figures.values())
    return Row(
        number=5, what=f"kill -9 during {count:,} solves: acknowledged and lost; acknowledged and paid twice",
        must="0; 0", met=complete and lost == twice == 0, ours=f"{lost}; {twice} ({hits})", figures=figures,
    )  # fmt: skip


Victim = Callable[[Path, "subprocess.Popen[bytes]"], int | None]


def _killed(count: int, times: int, victim: Victim, rng: random.Random) -> dict[str, int]:
    import ray

    with tempfile.TemporaryDirectory() as folder:
        home, hits = Path(folder), 0
        (home / "in.jsonl").write_text(
            "".join(json.dumps({"id": f"q{i}", "prompt": f"What is {i} + 1?"}) + "\n" for i in range(count))
        )
        code = (
            f"from benchmarks._ray.kills import driver; driver({folder!r}, {ray.get_runtime_context().gcs_address!r})"
        )
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None or process.returncode == -signal.SIGKILL:
            if process.poll() is not None:
                process = subprocess.Popen([sys.executable, "-c", code])
            if hits < times and _wait_for(home, process, (hits + rng.random()) * 0.8 * count / times):
                pid = victim(home, process)
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):  # it has just ended, or was killed before
                        os.kill(pid, signal.SIGKILL)
                        hits += 1
            time.sleep(0.05)
        assert process.returncode == 0, "the driver failed by itself"
        return _judged(home, count, hits)


def _wait_for(home: Path, process: subprocess.Popen[bytes], done: float) -> bool:
    """Whether so many were acknowledged while the process ran."""
    end = time.monotonic() + _LONG
    while process.poll() is None and time.monotonic() < end:
        if len(_lines(home / "acknowledged")) >= done:
            return True
        time.sleep(0.02)
    return False


def _judged(home: Path, count: int, hits: int) -> dict[str, int]:
    calls, acknowledged = _lines(home / "calls"), _lines(home / "acknowledged")
    when = {name: float(at) for at, name in acknowledged}
    rows = set(json.loads((home / "rows").read_text()))
    twice = {name for at, name, _ in calls if name in when and float(at) > when[name]}
    return {"batches": 1, "kills": hits, "acknowledged": len(when), "lost": len(set(when) - rows),
            "paid_twice": len(twice), "repeated_calls": len(calls) - 4 * count, "complete": int(len(rows) == count),
            "charged": json.loads((home / "spent").read_text())[0], "sent": len(calls)}  # fmt: skip


def _worker(home: Path, process: subprocess.Popen[bytes]) -> int | None:
    return int(_lines(home / "calls")[-1][2])


def _account(home: Path, process: subprocess.Popen[bytes]) -> int | None:
    import ray

    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
    name = next((name for name in names if name.startswith("tts-plugins-account-")), None)
    if name is None:
        return None
    try:
        return int(ray.get(ray.get_actor(name, namespace="tts_plugins").figures.remote(), timeout=60)["process"])
    except (ValueError, ray.exceptions.RayError):
        return None


def _driver(home: Path, process: subprocess.Popen[bytes]) -> int | None:
    return process.pid


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
