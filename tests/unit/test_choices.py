from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tts_plugins.models._openai.choices import generation, shown


def choice(finish: Any = "stop", logprobs: Any = None, **message: Any) -> SimpleNamespace:
    return SimpleNamespace(message=SimpleNamespace(**message), finish_reason=finish, logprobs=logprobs)


CALL = SimpleNamespace(function=SimpleNamespace(name="look_up", arguments='{"q": 1}'))


def test_a_plain_choice() -> None:
    given = choice(content="hello")
    made = generation(given)
    assert made is not None and (made.text, made.finish_reason, made.output) == ("hello", "stop", given.message)
    assert made.reasoning is None and made.logprobs is None


def test_parts_are_joined() -> None:
    made = generation(choice(content=[{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}, "c"]))
    assert made is not None and made.text == "abc"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_is_kept_beside_the_text(name: str) -> None:
    made = generation(choice(content="4", **{name: "2 + 2"}))
    assert made is not None and (made.text, made.reasoning) == ("4", "2 + 2")
    assert shown(choice(content="4", **{name: "2 + 2"})) == "42 + 2"


def test_null_content_is_no_generation_unless_it_was_cut_or_thought_or_calls_a_tool() -> None:
    assert generation(choice(content=None)) is None
    assert generation(choice()) is None
    assert generation(SimpleNamespace(message=None)) is None and generation(SimpleNamespace()) is None
    thought = generation(choice(content=None, reasoning_content="hm"))  # paid for, and another try would be as well
    assert thought is not None and (thought.text, thought.reasoning) == ("", "hm")
    cut = generation(choice("length", content=None, reasoning_content="hm"))
    assert cut is not None and (cut.text, cut.finish_reason, cut.reasoning) == ("", "length", "hm")
    called = generation(choice("tool_calls", content=None, tool_calls=[CALL]))
    assert called is not None and called.text == "" and called.output.tool_calls == [CALL]
    assert generation(choice(content=None, function_call=CALL.function)) is not None


def test_an_empty_text_is_a_generation() -> None:
    made = generation(choice(content=""))
    assert made is not None and made.text == ""


def test_a_refusal_is_its_text() -> None:
    made = generation(choice(content=None, refusal="I will not."))
    assert made is not None and made.text == "I will not."


@pytest.mark.parametrize("finish", ["content_filter", "SAFETY", "PROHIBITED_CONTENT", "refusal", "guardrail"])
def test_what_a_filter_withheld_is_an_answer_without_text(finish: str) -> None:
    made = generation(choice(finish, content=None))
    assert made is not None and (made.text, made.finish_reason) == ("", finish)


@pytest.mark.parametrize("finish", [None, ""])
def test_a_missing_finish_reason_is_a_stop(finish: Any) -> None:
    made = generation(choice(finish, content="x"))
    assert made is not None and made.finish_reason == "stop"


def test_logprobs() -> None:
    tokens = SimpleNamespace(content=[SimpleNamespace(logprob=-0.5), SimpleNamespace(logprob=-1)])
    made = generation(choice(content="x", logprobs=tokens))
    assert made is not None and made.logprobs == (-0.5, -1.0)
    for none in (SimpleNamespace(content=None), SimpleNamespace(content=[]), SimpleNamespace()):
        made = generation(choice(content="x", logprobs=none))
        assert made is not None and made.logprobs is None


def test_all_that_a_choice_says_is_shown() -> None:
    said = shown(choice(content="text", reasoning="thought", tool_calls=[CALL]))
    assert "text" in said and "thought" in said and "look_up" in said and '{"q": 1}' in said
    assert shown(SimpleNamespace()) == "" and shown(choice(content=None, tool_calls=None)) == ""


def test_a_call_and_a_refusal_in_the_old_form_are_shown_too() -> None:
    """Regression: their tokens were left out of the bound."""
    assert "look_up" in shown(choice(content=None, function_call=CALL.function))
    assert shown(choice(content=None, refusal="I will not.")) == "I will not."
    thinking = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "let me see"}]},
        {"type": "text", "text": "4"},
    ]
    assert "let me see" in shown(choice(content=thinking))
