"""The sandbox: what hostile programs achieve under each kind, and without one; what a check takes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks._rows import Row, Spread
from tests.sandbox_attacks import ATTACKS, world
from tts_plugins.verifiers import CodeTests
from tts_plugins.verifiers._sandbox.launch import KINDS, Kind
from tts_plugins.verifiers._sandbox.probe import Sandbox, probe

WARM = 0.060  # seconds that a check of a passing one-line program may take


async def sandboxes(checks: int) -> list[Row]:
    """The rows of this table."""
    rows = [await asyncio.to_thread(_bare)]
    for kind in KINDS:
        found = probe(kind)
        if isinstance(found, Sandbox):
            rows += [*await _attacked(found), *await _timed(kind, checks)]
        else:
            rows.append(Row(number=1, what=f"hostile actions, {kind}", ours=f"not here: {found}"))
    return rows


def _bare() -> Row:
    """Those that do no harm, run without a sandbox: the attacks do work."""
    done = tried = 0
    with world() as attacked:
        for attack in [a for a in ATTACKS if a.harmless]:
            source = f"{attacked.source(attack)}\nsys.exit(7 if attack() is True else 1)\n"
            ran = subprocess.run([sys.executable, "-c", source], capture_output=True, timeout=60, cwd=attacked.own)
            tried, done = tried + 1, done + (ran.returncode == 7)
            attacked.renew()
    return Row(
        number=1, what="hostile actions, no sandbox (only the harmless ones)", ours=f"{done} of {tried} succeed",
        figures={"tried": tried, "succeeded": done},
    )  # fmt: skip


async def _attacked(found: Sandbox) -> Iterator[Row]:
    succeeded = []
    with CodeTests(tests=[], sandbox=found.kind, timeout=3.0, test_timeout=2.0) as verifier, world() as attacked:
        for attack in ATTACKS:
            (outcome,) = await verifier.check(attacked.source(attack), ["assert attack() is True"])
            if outcome is None or (attack.shows is not None and attack.shows(attacked)):
                succeeded.append(attack.name)
    names = f" ({', '.join(succeeded)})" if succeeded else ""
    return iter([Row(
        number=1, what=f"hostile actions, {found}", ours=f"{len(succeeded)} of {len(ATTACKS)} succeed{names}",
        must="0", met=not succeeded, figures={"tried": len(ATTACKS), "succeeded": succeeded},
    )])  # fmt: skip


async def _timed(kind: Kind, checks: int) -> Iterator[Row]:
    with CodeTests(tests=[], sandbox=kind, workers=1) as verifier:
        first = await _once(verifier)
        seconds = [await _once(verifier) for _ in range(checks)]
    spread = Spread.of(seconds)
    return iter([
        Row(number=2, what=f"first check, {kind} (starts its process)", ours=f"{1000 * first:.0f} ms"),
        Row(
            number=3, what=f"warm check of a one-line program, {kind}, {checks} of them",
            ours=f"{1000 * spread.median:.1f} ms ({1000 * spread.low:.1f} to {1000 * spread.high:.1f}), "
            f"worst {1000 * max(seconds):.1f}", must="< 60 ms", met=spread.median < WARM,
            figures={"median": spread.median, "low": spread.low, "high": spread.high, "worst": max(seconds)},
        ),
    ])  # fmt: skip


async def _once(verifier: CodeTests) -> float:
    since = time.perf_counter()
    outcomes = await verifier.check("def add(a, b): return a + b", ["assert add(1, 2) == 3"])
    assert outcomes == [None]
    return time.perf_counter() - since
