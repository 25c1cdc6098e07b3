"""Optimisers improve a wrapped program as they would the bare one. The model does well once it is told how."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import Scaled

from tests.dspy_models import close, language_model
from tts_plugins.testing.loopback import LoopbackServer

pytestmark = pytest.mark.filterwarnings("ignore")  # of the optimisers' own dependencies
TOLD = "Count the letters x."
TRAINSET = [dspy.Example(question="x" * i, answer=i).with_inputs("question") for i in range(1, 7)]


def reply(body: dict[str, Any], index: int) -> str:
    system, asked = str(body["messages"][0]["content"]), str(body["messages"][-1]["content"])
    if "`answer` (int)" in system and "`new_instruction`" not in system and "`proposed_instruction`" not in system:
        counted = asked.split("Respond with")[0].count("x") if TOLD in system else 0
        return f"[[ ## answer ## ]]\n{counted}\n\n[[ ## completed ## ]]"
    if "JSON" in system:
        return json.dumps({"new_instruction": TOLD})
    names = dict.fromkeys(part.split(" ## ]]")[0] for part in system.split("[[ ## ")[1:])
    return "\n\n".join(f"[[ ## {name} ## ]]\n{TOLD}" for name in names) or f"```\n{TOLD}\n```"


def right(example: Any, prediction: Any, trace: Any = None, *more: Any) -> float:
    return float(example.answer == prediction.answer)


@pytest.fixture
def lm() -> Iterator[Any]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with LoopbackServer(reply=reply) as server:
        made = language_model(server, max_tokens=500)
        with (
            dspy.context(lm=made),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield made
        close(made)


def scores(program: Any) -> float:
    return float(dspy.Evaluate(devset=TRAINSET, metric=right, num_threads=2, display_progress=False)(program).score)


def test_mipro(lm: Any) -> None:
    pytest.importorskip("optuna")
    scaled = Scaled(dspy.Predict("question -> answer: int"), n=2)
    optimiser = dspy.MIPROv2(
        metric=right, auto=None, num_candidates=2, max_bootstrapped_demos=1, max_labeled_demos=1, num_threads=2
    )
    made = optimiser.compile(scaled, trainset=TRAINSET, valset=TRAINSET, num_trials=3, minibatch=False)
    assert isinstance(made, Scaled) and scores(scaled) < scores(made) == 100


def test_gepa(lm: Any) -> None:
    pytest.importorskip("gepa")

    def judged(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        return dspy.Prediction(score=right(gold, pred), feedback="count the letters")

    scaled = Scaled(dspy.Predict("question -> answer: int"), n=2)
    optimiser = dspy.GEPA(metric=judged, max_metric_calls=40, reflection_lm=lm, num_threads=2)
    made = optimiser.compile(scaled, trainset=TRAINSET, valset=TRAINSET)
    assert isinstance(made, Scaled) and scores(scaled) < scores(made) == 100
