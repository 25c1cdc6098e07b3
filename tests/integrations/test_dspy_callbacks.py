"""Callbacks of DSPy under a search: the user's hear what they hear without one, the meter of every call of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from dspy.utils.callback import BaseCallback, with_callbacks
from tts_plugins_dspy import Scaled

from tests.dspy_models import close, language_model
from tests.imitations import said
from tts_plugins import BestOfN, Budget, Ledger
from tts_plugins.testing.loopback import LoopbackServer


class Heard(BaseCallback):  # type: ignore[misc]
    """Counts what it is told of."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.of[type(instance).__name__] += 1

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.of["lm"] += 1

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.of["format"] += 1

    def on_adapter_parse_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.of["parse"] += 1


class Outer(dspy.Module):  # type: ignore[misc]
    """A predictor in an attribute, and one in a list."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> answer: int", **settings)
        self.others = [dspy.Predict("question -> answer: int", **settings)]

    def forward(self, question: str) -> Any:
        self.first(question=question)
        return self.others[0](question=question)


class Calling(dspy.Module):  # type: ignore[misc]
    """Calls language models without an adapter: its own, and one that stands in no attribute."""

    def __init__(self, *models: Any) -> None:
        super().__init__()
        self.model, self.hidden = models[0], lambda text: models[-1](text)

    def forward(self, question: str) -> Any:
        self.model(question)
        return dspy.Prediction(answer=self.hidden(question + "!")[0])


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    with LoopbackServer(reply=lambda body, i: said(reasoning="r", answer=i)) as running:
        yield running


@pytest.mark.parametrize("where", ["settings", "module", "model"])
def test_the_users_callbacks_hear_what_they_hear_without_a_search(server: LoopbackServer, where: str) -> None:
    def heard(wrap: Any, times: int) -> Counter[str]:
        reported, lm = Heard(), language_model(server)
        module = Outer(callbacks=[reported]) if where == "module" else Outer()
        if where == "model":
            lm.callbacks.append(reported)
        with dspy.context(lm=lm, callbacks=[reported] if where == "settings" else []):
            for _ in range(times):
                wrap(module)(question="q")
        close(lm)
        return reported.of

    bare = heard(lambda module: module, 3)
    searched = heard(lambda module: Scaled(module, strategy=BestOfN(n=3), verifier=lambda p: 0.5), 1)
    searched.pop("Scaled", None)
    assert searched == bare and bare["lm"] == (0 if where == "module" else 6)


@pytest.mark.parametrize("shared", [False, True], ids=["own lists", "one list of callbacks for all"])
def test_every_call_of_a_model_is_on_the_account(server: LoopbackServer, shared: bool) -> None:
    own, hidden, configured = (language_model(server) for _ in range(3))
    module = Calling(own, hidden)
    if shared:
        module.callbacks = own.callbacks = configured.callbacks = []
    account = Ledger(Budget(tokens=100_000))
    with dspy.context(lm=configured):
        Scaled(module, strategy=BestOfN(n=3), verifier=lambda p: 0.5, budget=account)(question="q")
    counted = server.wait()
    assert account.usage.calls == counted.requests == 6
    assert account.spent.tokens == counted.tokens > 0
    for lm in (own, hidden, configured):
        close(lm)


def test_a_program_that_remembers_much_is_not_searched_through(server: LoopbackServer) -> None:
    """DSPy keeps up to 10,000 calls in each module; what is looked at before a search must not grow with them."""
    lm, module, seen = language_model(server), Outer(), list[object]()

    class Remembered(dict[str, Any]):
        def items(self) -> Any:
            seen.append(self)
            return super().items()

    module.first.history.extend(Remembered(prompt="p") for _ in range(10))
    with dspy.context(lm=lm):
        Scaled(module, strategy=BestOfN(n=2), verifier=lambda p: 0.5)(question="q")
    close(lm)
    assert seen == []


class Joined(dspy.Module):  # type: ignore[misc]
    """Adds callbacks of its own to those that there are."""

    def __init__(self, how: str, reported: Heard) -> None:
        super().__init__()
        self.ask, self.how, self.reported = dspy.Predict("question -> answer: int"), how, reported

    def forward(self, question: str) -> Any:
        standing = dspy.settings.callbacks
        if self.how == "appended":
            standing.append(self.reported)
            return self.ask(question=question)
        own = {"added": standing + self.callbacks, "listed": [*standing, self.reported], "instead": [self.reported]}[
            self.how
        ]
        with dspy.context(callbacks=own):
            return self.ask(question=question)


@pytest.mark.parametrize("how", ["added", "listed", "appended", "instead"])
def test_callbacks_that_a_program_sets_leave_the_account_right(server: LoopbackServer, how: str) -> None:
    lm, reported, account = language_model(server), Heard(), Ledger(Budget(tokens=100_000))
    with dspy.context(lm=lm, callbacks=[]):
        result = Scaled(Joined(how, reported), strategy=BestOfN(n=3), verifier=lambda p: 0.5, budget=account).solve(
            question="q"
        )
    close(lm)
    counted = server.wait()
    assert (account.usage.calls, account.spent.tokens) == (counted.requests, counted.tokens) and counted.requests == 3
    assert result.usage.exact and result.usage.overshoot == 0, "every call was reserved before it was made"
    assert (reported.of["Predict"] > 0) is (how != "added")


def test_a_usage_tracker_inside_a_program(server: LoopbackServer) -> None:
    class Tracking(Outer):
        def forward(self, question: str) -> Any:
            with dspy.track_usage() as usage:
                prediction = super().forward(question)
            assert usage.get_total_tokens()
            return prediction

    lm, account = language_model(server), Ledger(Budget(tokens=100_000))
    with dspy.context(lm=lm):
        Scaled(Tracking(), strategy=BestOfN(n=2), verifier=lambda p: 0.5, budget=account)(question="q")
    close(lm)
    counted = server.wait()
    assert account.usage.calls == counted.requests == 4 and account.spent.tokens >= counted.tokens


def test_a_model_with_a_call_of_its_own_is_charged_though_it_tells_no_usage() -> None:
    class Silent(dspy.BaseLM):  # type: ignore[misc]
        @with_callbacks
        def __call__(self, prompt: str | None = None, messages: Any = None, **kwargs: Any) -> list[str]:
            return [said(reasoning="r", answer=1)]

    account = Ledger(Budget(calls=10))
    with dspy.context(lm=Silent(model="silent", max_tokens=50)):
        Scaled(dspy.Predict("question -> answer: int"), n=3, verifier=lambda p: 0.5, budget=account)(question="q")
    assert account.usage.calls == 3 and account.usage.completion_tokens == 150 and not account.usage.exact


@pytest.mark.parametrize("form", ["object", "wrapper"])
def test_metrics_that_give_a_coroutine_are_on_the_account(server: LoopbackServer, form: str) -> None:
    judge = dspy.Predict("answer -> score: float")

    class Judging:
        async def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
            await judge.acall(answer=str(prediction.answer))
            return 0.5

    metric: Any = Judging() if form == "object" else lambda example, prediction: Judging()(example, prediction)
    lm, account = language_model(server), Ledger(Budget(calls=100))
    server.configure(reply=lambda body, i: said(answer=i, score=0.5))
    with dspy.context(lm=lm):
        Scaled(dspy.Predict("question -> answer: int"), n=3, verifier=metric, budget=account)(question="q")
    close(lm)
    assert account.usage.calls == server.wait().requests == 6
    assert account.usage.by_role["verifier"].calls == 3
