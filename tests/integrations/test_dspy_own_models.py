"""Language models of a user's own class, in their many forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
import openai
from tts_plugins_dspy import Scaled, ScaledLM

from tests.dspy_models import program, score
from tests.imitations import said
from tts_plugins import Budget
from tts_plugins.testing.loopback import LoopbackServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # DSPy 3.4 has another way to write such classes


class Own(dspy.BaseLM):  # type: ignore[misc]
    """What the classes below have in common."""

    def __init__(self, server: LoopbackServer) -> None:
        super().__init__(model="own", max_tokens=50)
        self.client = openai.OpenAI(base_url=server.base_url, api_key="-", max_retries=0)
        self.given = list[set[str]]()
        self.calls = 0

    def reply(self, given: Any = ()) -> Any:
        """A completion in the client's form."""
        self.calls += 1
        self.given.append(set(given))
        message = SimpleNamespace(content=said(answer=self.calls), tool_calls=None)
        usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
        choice = SimpleNamespace(message=message, finish_reason="stop")
        return SimpleNamespace(choices=[choice], usage=usage, model="own")


class Named(Own):
    """Names what it takes, and takes no settings."""

    def forward(self, prompt: Any = None, messages: Any = None) -> Any:
        return self.reply()


class WithTemperature(Own):
    """Takes one setting."""

    def forward(self, prompt: Any = None, messages: Any = None, temperature: float = 0.0) -> Any:
        return self.reply({"temperature"} if temperature == 1.0 else ())


class Called(Own):
    """Has a call of its own."""

    def __call__(self, prompt: Any = None, messages: Any = None) -> Any:
        return [choice.message.content for choice in self.reply().choices]


class Passing(Own):
    """Passes all that it is given on to a client."""

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        self.given.append(set(settings))
        return self.client.chat.completions.create(model="m", messages=messages, **settings)


class Refusing(Own):
    """Asks a server that refuses what it does not know."""

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        if "rollout_id" in settings:
            error = RuntimeError("400: Unrecognized request argument supplied: rollout_id")
            error.status_code = 400  # type: ignore[attr-defined]
            raise error
        return self.reply(settings)


OWN = {
    kind.__name__: (kind, given)
    for kind, given in (
        (Named, set()), (WithTemperature, {"temperature"}), (Called, set()), (Passing, {"temperature"}),
        (Refusing, {"temperature"}),
    )
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_they_are_given_what_they_take(dspy_server: LoopbackServer, name: str) -> None:
    kind, given = OWN[name]
    lm: Any = kind(dspy_server)
    with dspy.context(lm=lm):
        result = Scaled(program(), n=3, verifier=score, budget=Budget(calls=3)).solve(question="q")
        assert len({c.output.answer for c in result.candidates}) == 3 == result.usage.calls
        assert result.usage.exact == (name != "Called"), "a call of its own tells nobody what it used"
    with dspy.context(lm=ScaledLM(lm, n=3)):
        assert program()(question="r").answer is not None
    assert lm.given[-3:] == [given] * 3
    lm.client.close()


def test_a_class_that_sets_itself_up_is_searched_too(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    class Bare(dspy.BaseLM):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model, self.history, self.callbacks, self.model_type = "bare", [], [], "chat"

        def __call__(self, prompt: Any = None, messages: Any = None, **settings: Any) -> list[str]:
            return list(dspy_lm(prompt, messages=messages, **settings))

    lm = ScaledLM(Bare(), n=3)
    assert "bare" in repr(lm)
    with dspy.context(lm=lm):
        program()(question="q")
    assert dspy_server.counts.requests == 3


def test_errors_that_are_about_something_else_are_not_tried_again(dspy_server: LoopbackServer) -> None:
    class Failing(Own):
        def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
            self.given.append(set(settings))
            raise TypeError("no such model")

    lm: Any = Failing(dspy_server)
    with dspy.context(lm=lm), pytest.raises(TypeError, match="no such model"):
        Scaled(program(), n=2, verifier=score)(question="q")
    assert len(set(map(frozenset, lm.given))) == 1, "nothing is left out"
    lm.client.close()
