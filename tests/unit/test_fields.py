"""Regression: settings of the request went past what was reserved, 2104 tokens on an account that said 74."""

from __future__ import annotations

from typing import Any

import pytest

from tts_plugins import Problem
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.types import REQUEST


def made(**settings: Any) -> OpenAICompatibleModel:
    return OpenAICompatibleModel("m", **{"base_url": "http://127.0.0.1:1/v1", "max_tokens": 10, **settings})


PAST: list[dict[str, Any]] = [
    {"max_tokens": 500}, {"max_completion_tokens": 500}, {"n_predict": 500}, {"n": 4}, {"n_cmpl": 4}, {"best_of": 8},
    {"messages": [{"role": "user", "content": "x" * 3000}]}, {"prompt": "x" * 3000}, {"stream": True}, {"model": "big"},
]  # fmt: skip


@pytest.mark.parametrize("fields", PAST, ids=lambda fields: str(next(iter(fields))))
def test_fields_that_decide_on_the_cost_are_refused(fields: dict[str, Any]) -> None:
    (name,) = fields
    for where in ("params", "extra_body"):
        with pytest.raises(ConfigurationError, match=f"OpenAICompatibleModel: {where}={{'{name}': .*reserved"):
            made(**{where: fields})
    with pytest.raises(ConfigurationError, match=f"extra_body={{'{name}'"):
        made(params={"extra_body": fields})
    for asked in (fields, {"extra_body": fields}):
        with pytest.raises(ConfigurationError, match=f"{{'{name}'"):
            made()._prompt(Problem("q", metadata={REQUEST: asked}))


def test_a_limit_without_max_tokens_is_refused_with_its_mend() -> None:
    with pytest.raises(ConfigurationError, match="give it as max_tokens itself"):
        made(max_tokens=None, params={"max_tokens": 500})
    with pytest.raises(ConfigurationError, match="takes max_tokens=10 out of the request"):
        made(params={"max_tokens": None})
    with pytest.raises(ConfigurationError, match=r"extra_body=\{'max_tokens': None\}"):
        made(extra_body={"max_tokens": None})


def test_other_fields_and_the_other_name_of_the_limit_are_sent() -> None:
    model = made(
        params={"max_tokens": None, "max_completion_tokens": 10, "reasoning_effort": "low", "n": None},
        extra_body={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}},
    )
    body = model._body(model._prompt(Problem("q")), [1], None, model._accepted)
    assert body["max_completion_tokens"] == 10 and "max_tokens" not in body and "n" not in body
    assert body["reasoning_effort"] == "low" and body["extra_body"]["top_k"] == 5
