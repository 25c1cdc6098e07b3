"""A benchmark that is killed: the short form of `python -m benchmarks.bench_kills`, which kills it twenty times."""

from __future__ import annotations

import pytest

pytest.importorskip("typer")
pytest.importorskip("aiohttp")

from benchmarks.bench_kills import run


def test_three_kills_lose_nothing_and_pay_nothing_twice() -> None:
    found = run(3, problems=8, seed=1)
    assert found.kills == 3
    assert found.replies > 0  # it was hit in the middle of solves
    assert (found.lost, found.paid_twice, found.different) == (0, 0, 0)
    assert found.again <= found.in_flight
    assert found.sound
