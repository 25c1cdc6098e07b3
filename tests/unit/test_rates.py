"""Requests and tokens a minute over many workers: never more in any window, and nearly all of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins._calls.limiter import limiter_of, share_limits
from tts_plugins.budget import Limits
from tts_plugins.distributed import _rates
from tts_plugins.distributed._rates import LEASE, RateAsk, RateGrant, Rates, SharedPace
from tts_plugins.testing.scripted import ScriptedModel

WINDOW = 60.0


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0, LEASE), st.integers(0, 3)), max_size=80),
)  # fmt: skip
def test_no_window_has_more_than_the_limit(limit: int, workers: int, asks: list[tuple[float, float, int]]) -> None:
    """Whenever within its time a permit is used, and whatever is returned."""
    rates, now, used = Rates(workers), 0.0, list[float]()
    back: tuple[int, int, int] | None = None
    for pause, late, returned in asks:
        now += pause
        grant = rates.ask(RateAsk("s", limit, None, 5, back), now)
        returned = min(returned, grant.requests)
        used += [now + late] * (grant.requests - returned)
        back = (grant.lease, returned, 0) if grant.requests else None
    for at in used:
        assert sum(at <= other < at + WINDOW for other in used) <= limit


def test_tokens_count_and_a_request_beyond_all_is_sent_alone() -> None:
    rates = Rates(1)
    assert rates.ask(RateAsk("s", None, 100, 500), 0.0).tokens == 500
    waits = rates.ask(RateAsk("s", None, 100, 10), 1.0)
    assert waits == RateGrant(0, 0, 0, waits.wait)
    assert waits.wait == pytest.approx(LEASE + WINDOW - 1.0)
    assert rates.ask(RateAsk("s", None, 100, 10), LEASE + WINDOW + 0.1).tokens >= 10
    assert rates.ask(RateAsk("other", None, 100, 10), 1.0).tokens >= 10


async def test_workers_share_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes' worth of paces, in a window of half a second: all is sent, and at no time too much."""
    monkeypatch.setattr(_rates, "LEASE", 0.05)
    rates, sent = Rates(2, window=0.5), list[float]()
    loop = asyncio.get_running_loop()

    async def send(ask: RateAsk) -> RateGrant:
        return rates.ask(ask, loop.time())

    async def worker() -> None:
        pace = SharedPace("s", 20, None, send)
        for _ in range(25):
            await pace(1)
            sent.append(loop.time())

    await asyncio.wait_for(asyncio.gather(worker(), worker()), 120)
    assert len(sent) == 50
    assert all(sum(at <= other < at + 0.5 for other in sent) <= 20 for at in sent)


async def test_a_process_s_limiters_are_shared_from_now_on() -> None:
    asked = []

    async def pace(tokens: int) -> None:
        asked.append(tokens)

    model = ScriptedModel(["a"], limits=Limits(concurrency=4, requests_per_minute=1))
    try:
        share_limits(lambda model: (Limits(concurrency=2), pace))
        limiter = limiter_of(model)
        places = [await limiter.enter(tokens, None, None) for tokens in (7, 8)]
        assert asked == [7, 8]
        assert limiter.places is not None and limiter.places.holders == 2
        for place in places:
            assert place is not None
            place.leave()
    finally:
        share_limits(None)
