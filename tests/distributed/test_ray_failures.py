"""What goes wrong on a cluster: processes that hang, clusters that are left, files of a cluster before this one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.distributed import work
from tests.unit.test_account import dead_worker
from tts_plugins import BestOfN, Budget, Ledger, Result, solve_many, solve_stream
from tts_plugins.budget import Amount
from tts_plugins.distributed import Factory, RayEngine, _fleet
from tts_plugins.distributed._actors import _OtherNodes

FOUR: dict[str, Any] = {"strategy": BestOfN(n=4), "verifier": work.perfect, "return_errors": True}


def the_account() -> int:
    import ray

    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True)]
    name = next(name for name in names if name.startswith("tts-plugins-account-"))
    return int(ray.get(ray.get_actor(name, namespace="tts_plugins").figures.remote())["process"])


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("victim", ["worker", "account"])
async def test_a_process_that_hangs_is_replaced_and_its_money_is_free(
    victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fleet, "_QUIET", 1.0)
    monkeypatch.setattr(_fleet, "_SILENT", 4.0)
    engine, ledger, found, stopped = RayEngine(workers=2, in_flight=4), Ledger(Budget(calls=840)), [], None
    async for _, result in solve_stream(
        map(str, range(200)), model=Factory(work.names_its_process, 0.01), engine=engine, budget=ledger, **FOUR
    ):
        found.append(result)
        if stopped is None and isinstance(result, Result):
            stopped = int(result.text.split()[1]) if victim == "worker" else await asyncio.to_thread(the_account)
            os.kill(stopped, signal.SIGSTOP)
    solved = [result for result in found if isinstance(result, Result)]
    assert len(found) == 200 and ledger.spent == engine.stats.spent and not any(ledger.held)
    assert ledger.spent.calls <= 840 and len(solved) * 4 <= ledger.spent.calls
    assert ledger.spent.calls >= 0.99 * 840 or len(solved) == 200
    if victim == "worker":
        assert engine.stats.workers_lost >= 1


@pytest.mark.usefixtures("cluster")
async def test_an_engine_runs_two_batches_at_once_each_with_its_own_ledger() -> None:
    engine, ledgers = RayEngine(workers=1, in_flight=8), [Ledger(Budget(calls=200)), Ledger(Budget(calls=40))]
    model = Factory(work.model, 0.002)
    both = [solve_many(range(40), model=model, engine=engine, budget=ledger, **FOUR) for ledger in ledgers]
    for found, ledger in zip(await asyncio.gather(*both), ledgers, strict=True):
        assert ledger.spent.calls == sum(r.usage.calls for r in found if isinstance(r, Result)) >= 40
        assert not any(ledger.held)


@pytest.mark.usefixtures("cluster")
async def test_calls_of_a_killed_worker_are_counted_without_any_limit(tmp_path: Path) -> None:
    engine, ledger = RayEngine(workers=1, in_flight=4), Ledger()
    found = await solve_many(
        [f"q{i}" for i in range(30)], model=Factory(work.Deadly, "q20", str(tmp_path / "once")), engine=engine,
        budget=ledger, **FOUR,
    )  # fmt: skip
    assert all(isinstance(each, Result) for each in found) and engine.stats.workers_lost == 1
    assert ledger.spent.calls == engine.stats.spent.calls > 4 * 30


@pytest.mark.usefixtures("cluster")
def test_a_worker_of_the_cluster_before_this_one_is_charged_what_it_had_open(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    dead_worker(path)
    assert _OtherNodes().used_by("a node of the old cluster", str(path)) == Amount(5, 55, 5_000)
    assert _OtherNodes().used_by("a node elsewhere", str(tmp_path / "gone")) is None


@pytest.mark.usefixtures("cluster")
async def test_a_worker_that_begins_late_has_the_seconds_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    account: Any = SimpleNamespace(limits={"calls": 5, "seconds": 60.0})
    fleet = _fleet.Fleet(account, b"", 1, 1, {}, counted=True)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 50)
    assert fleet._limits() == {"calls": 5, "seconds": pytest.approx(10, abs=5)}


LEFT = """
import asyncio, json, sys, ray
from tests.distributed import work
from tests.distributed.conftest import SMALL
from tts_plugins import BestOfN, Budget, Ledger, solve_stream
from tts_plugins.distributed import Factory, RayEngine

async def main():
    ledger, said = Ledger(Budget(calls=9000)), None
    stream = solve_stream(map(str, range(9000)), model=Factory(work.model, 0.01), strategy=BestOfN(n=4),
                          verifier=work.perfect, engine=RayEngine(workers=1, in_flight=4), budget=ledger)
    try:
        async for number, _ in stream:
            if ray.is_initialized():
                ray.shutdown()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([said, ledger.spent.calls, ray.is_initialized()]))

ray.init(address="local", runtime_env={"env_vars": {"A": "b"}}, namespace="mine", **SMALL)
asyncio.run(main())
"""


def test_a_cluster_that_is_left_in_the_midst_ends_the_run_and_all_is_charged() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said, spent, joined = json.loads(done.stdout.splitlines()[-1])
    assert said.startswith("TTSError: ") and "has left its cluster, as by ray.shutdown()" in said
    assert spent == 9000 and not joined
