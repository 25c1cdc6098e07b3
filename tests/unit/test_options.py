"""Settings are declared once: what `CommonOptions` has, `solve` and every wrapper take, with the same default."""

from __future__ import annotations

import dataclasses
import inspect
import re
import traceback
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tts_plugins import (
    BeamSearch,
    BestOfN,
    Budget,
    ComputeOptimal,
    Ledger,
    dry_run,
    solve_events,
    solve_many,
    solve_many_sync,
    solve_stream,
    solve_sync,
)
from tts_plugins._internal.signatures import called_as
from tts_plugins.adapters import SearchOptions, SearchSettings
from tts_plugins.engine import solve
from tts_plugins.errors import ConfigurationError, UnknownSettingError
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.options import CommonOptions, CommonSettings, SolveOptions
from tts_plugins.stopping import Threshold
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import CallableVerifier, CodeTests

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
    with pytest.raises(UnknownSettingError, match=r"'n' is a setting of the strategy; write strategy=BestOfN\(n=8\)"):
        solve_sync("q", **{**given, "n": 8})
    with pytest.raises(ConfigurationError, match="solve: model=None"):
        solve_sync("q", **{})  # type: ignore[typeddict-item]


def test_arguments_that_do_not_fit_are_told_with_the_call_to_write() -> None:
    model, key = ScriptedModel(["a"]), "sk-secret"
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
        (solve_sync, (), {}, "solve_sync: missing a required argument: 'problem'; write solve_sync(problem, model=mod"),
        (solve_sync, ("q", 3), {"model": model}, "solve_sync: 3 is given by its place, .* write solve_sync(problem, "),
        (solve_events, ("q", 3), {}, "solve_events: 3 is given by its place"),
        (solve_many_sync, ([], 3), {}, "solve_many_sync: 3 is given by its place"),
        (dry_run, ("q", 3), {}, "dry_run: 3 is given by its place"),
        (BestOfN, (4,), {}, "BestOfN: 4 is given by its place, and settings are given by name; write BestOfN(n=4)"),
        (BeamSearch, (8, 4), {}, "BeamSearch: 8 .* write BeamSearch(n=8, beam_width=4)"),
        (BestOfN, (), {"stopp": None}, "BestOfN: 'stopp' is not a setting; did you mean 'stop'?"),
        (ComputeOptimal, (), {}, "ComputeOptimal: missing a required .*'plans'; write ComputeOptimal(plans=…)"),
        (Threshold, (0.9, 2), {}, "Threshold: 2 is given by its place"),
        (Budget, (4,), {}, "Budget: 4 is given by its place, and settings are given by name; write Budget(calls=4)"),
        (Budget, (), {"cals": 4}, "Budget: 'cals' is not a setting; did you mean 'calls'?"),
        (Ledger, (None, 4), {}, "Ledger: 4 is given by its place"),
        (OpenAICompatibleModel, ("m", key), {}, "OpenAICompatibleModel: a value of type str is .*(model, base_url=…)"),
        (OpenAICompatibleModel, (), {"api_key": key}, "OpenAICompatibleModel: missing a required .*'model'"),
        (OpenAICompatibleModel, ("m",), {"apikey": key}, "OpenAICompatibleModel: 'apikey' .* did you mean 'api_key'"),
        (LocalModel, ("m",), {"temperatur": 1}, "LocalModel: 'temperatur' .* did you mean 'temperature'"),
        (CallableVerifier, (), {}, "CallableVerifier: missing a required argument: 'function'"),
        (CodeTests, (), {"testz": []}, "CodeTests: 'testz' is not a setting"),
    ]  # fmt: skip
    for function, args, kwargs, says in calls:
        pattern = ".*".join(re.escape(part) for part in says.split(".*"))
        with pytest.raises(UnknownSettingError, match=pattern) as caught:
            function(*args, **kwargs)
        assert isinstance(caught.value, TypeError)
        shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
        assert key not in shown.partition("test_options.py")[2].partition("signatures.py")[2]


async def test_solve_tells_it_too_and_stays_a_coroutine_function() -> None:
    assert inspect.iscoroutinefunction(solve) and inspect.iscoroutinefunction(solve_many)
    wrong: Any = solve
    with pytest.raises(UnknownSettingError, match="solve: missing a required argument: 'problem'; write solve\\(prob"):
        await wrong()
    with pytest.raises(UnknownSettingError, match="solve: 3 is given by its place"):
        await wrong("q", 3)


async def test_a_stream_of_solves_stays_an_asynchronous_generator_function() -> None:
    assert inspect.isasyncgenfunction(solve_stream)
    wrong: Any = solve_stream
    with pytest.raises(UnknownSettingError, match=r"solve_stream: missing .*'problems'; write solve_stream\(problems"):
        await anext(wrong())
    closed: list[str] = []

    @called_as()
    async def counting() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            closed.append("inside")

    numbers = counting()
    assert await anext(numbers) == 1
    await numbers.aclose()
    assert closed == ["inside"]


def test_a_type_error_of_the_function_itself_stays_what_it_is() -> None:
    @called_as()
    def divide(a: Any, b: Any) -> Any:
        return a + b

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        divide(1, "2")
    assert not isinstance(caught.value, UnknownSettingError)
    assert divide(1, b=2) == 3


def test_adapters_tell_it_too() -> None:
    pytest.importorskip("langchain_core")
    from tts_plugins_langchain import SampleCache, ScaledRunnable
    from tts_plugins_openai import result_of

    runnable: Any = ScaledRunnable
    with pytest.raises(UnknownSettingError, match=r"ScaledRunnable: 8 is given by its place.* write scale\(chain, n=8"):
        runnable(8)
    with pytest.raises(UnknownSettingError, match=r"SampleCache: missing .*'cache'; write SampleCache\(InMemoryCache"):
        SampleCache()  # type: ignore[call-arg]
    with pytest.raises(UnknownSettingError, match=r"result_of: missing .*; write result_of\(completion\)"):
        result_of()  # type: ignore[call-arg]


async def test_the_listener_of_events_hears_what_the_iterator_gives() -> None:
    heard: list[Any] = []
    events = solve_events("q", model=ScriptedModel(["a"]), listener=heard.append)
    assert [event async for event in events] == heard != []
