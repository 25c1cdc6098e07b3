"""What tests of several folders are given."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["aiohttp", "openai"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in which our own models send: tests that use this hold them to the same promises."""
    monkeypatch.setenv("TTS_PLUGINS_TRANSPORT", request.param)
    return str(request.param)
