"""Rows 7 to 9: what is refused, what runs in a browser, and how the viewer scrolls."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys

from benchmarks._rows import Row
from benchmarks._server.stage import ROOT
from tests.browser import CHROMIUM, browsing
from tests.integrations.test_viewer import FRAMES, PAYLOADS, many, solves_of
from tests.serving import serving

_SECURITY = "no_caller_reaches or hostile or planted or prompts_stay or a_key_is_needed"


async def refused(short: bool) -> list[Row]:
    """Row 7: the tests of upstreams, hosts, origins and planted keys."""
    failed, ran = await asyncio.to_thread(_tests, "tests/integrations/test_server_security.py", _SECURITY)
    return [
        Row(number=7, what="callers' upstreams; hostile Host or Origin; planted keys found", must="0; 0; 0",
            ours=f"{failed} of {ran} tests fail", met=failed == 0 and ran > 0),
    ]  # fmt: skip


async def hostile(short: bool) -> list[Row]:
    """Row 8: hostile texts in Chromium."""
    if CHROMIUM is None:
        return [Row(number=8, what="hostile texts in Chromium", must="0", ours="no chromium", met=None)]
    failed, ran = await asyncio.to_thread(_tests, "tests/integrations/test_viewer.py", "hostile")
    return [
        Row(number=8, what=f"{len(PAYLOADS)} XSS payloads in viewer and static pages: executed", must="0",
            ours="0" if not failed else "some", met=failed == 0 and ran > 0),
    ]  # fmt: skip


def _tests(path: str, which: str) -> tuple[int, int]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", path, "-k", which]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    passed, failed = (sum(line.startswith(word) for line in lines) for word in ("PASSED", "FAILED"))
    return failed, passed + failed


async def scrolling(short: bool) -> list[Row]:
    """Row 9: the viewer with ten thousand candidates."""
    if CHROMIUM is None:
        return [Row(number=9, what="viewer with 10,000 candidates", must="<= 1 s", ours="no chromium", met=None)]
    paint, moves = await asyncio.to_thread(_scroll)
    median, p95 = statistics.median(moves), statistics.quantiles(moves, n=20)[-1]
    return [
        Row(number=9, what="viewer with 10,000 candidates: first paint; scroll frame, median and p95",
            must="<= 1 s; <= 20, <= 60 ms", ours=f"{paint:.2f} s; {median:.0f}, {p95:.0f} ms",
            met=paint <= 1 and median <= 20 and p95 <= 60, figures={"paint": paint, "median": median, "p95": p95}),
    ]  # fmt: skip


def _scroll() -> tuple[float, list[float]]:
    with serving() as served:
        solves_of(served).add("big", many(10_000), title="big")
        with browsing(viewport={"width": 1280, "height": 900}) as context:
            tab = context.new_page()
            paints = []
            for _ in range(3):
                tab.goto("about:blank")
                tab.goto(f"{served.root}/view/#/solve/big")
                tab.wait_for_selector(".pool .line")
                paints.append(tab.evaluate("performance.now()") / 1000)
            return statistics.median(paints), tab.evaluate(FRAMES)
