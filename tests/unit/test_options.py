"""Settings are declared once: what `CommonOptions` has, `solve` and every wrapper take, with the same default."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tts_plugins import solve_events, solve_many, solve_sync
from tts_plugins.adapters import SearchOptions, SearchSettings
from tts_plugins.engine import solve
from tts_plugins.errors import ConfigurationError, UnknownSettingError
from tts_plugins.options import CommonOptions, CommonSettings, SolveOptions
from tts_plugins.testing import ScriptedModel

COMMON = set(CommonOptions.__annotations__)


def test_the_declaration_and_the_defaults_have_the_same_names() -> None:
    assert {field.name for field in dataclasses.fields(CommonSettings)} == COMMON
    assert set(SolveOptions.__annotations__) >= COMMON and set(SearchOptions.__annotations__) >= COMMON
    assert COMMON <= set(SearchSettings().arguments()) <= set(SolveOptions.__annotations__)


def test_langchain_s_fields_have_all_of_them_with_the_same_defaults() -> None:
    pytest.importorskip("langchain_core")
    from tts_plugins_langchain import ScaledRunnable

    fields, plain = ScaledRunnable.model_fields, SearchSettings()
    for name in {*SearchOptions.__annotations__} - {"profile"}:
        assert name in fields, f"{name} is an option of every adapter, and no field of SearchFields"
    for name in COMMON:
        assert fields[name].default == getattr(plain, name)


async def test_every_entrance_refuses_a_misspelt_name_and_says_which_is_meant() -> None:
    given: dict[str, Any] = {"model": ScriptedModel(["a"]), "budgett": None}
    says = "'budgett' is not a setting; did you mean 'budget'"
    for entrance in (solve_sync, solve_events):
        with pytest.raises(UnknownSettingError, match=says):
            entrance("q", **given)
    with pytest.raises(UnknownSettingError, match=says):
        await solve("q", **given)
    with pytest.raises(UnknownSettingError, match=says):
        await solve_many([], **given)
    with pytest.raises(ConfigurationError, match="solve: model=None"):
        solve_sync("q", **{})  # type: ignore[typeddict-item]


async def test_the_listener_of_events_hears_what_the_iterator_gives() -> None:
    heard: list[Any] = []
    events = solve_events("q", model=ScriptedModel(["a"]), listener=heard.append)
    assert [event async for event in events] == heard != []
