"""What tests of several folders are given."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# A run that passed must pass again, however busy the machine: the same examples each time, and no limit of time. New
# examples are looked for with `pytest --hypothesis-profile=explore`.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


@pytest.fixture(params=["aiohttp", "openai"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in which our own models send: tests that use this hold them to the same promises."""
    monkeypatch.setenv("TTS_PLUGINS_TRANSPORT", request.param)
    return str(request.param)
