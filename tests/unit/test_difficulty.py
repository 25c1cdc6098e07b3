from __future__ import annotations

import json
import math

import pytest

from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.policies import Difficulty
from tts_plugins.policies.difficulty import oracle, predicted, quantile_edges
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.types import Problem, Scored


def seen(*answers: str | None, scores: tuple[float | None, ...] = (), cut: tuple[int, ...] = ()) -> list[Scored]:
    return [
        Scored(Problem("?"), text="x", answer=a, score=scores[i] if scores else None, truncated=i in cut,
               logprobs=(math.log(0.5), math.log(0.25)), index=i)
        for i, a in enumerate(answers)
    ]  # fmt: skip


def test_oracle_is_the_share_of_right_samples() -> None:
    graded = [PoolCandidate(correct=c) for c in (True, False, True, True)]
    assert oracle(PoolProblem(id="p", candidates=tuple(graded))) == 0.75
    for candidates in ((), (PoolCandidate(correct=None),)):
        with pytest.raises(DataError, match="'p', correct"):
            oracle(PoolProblem(id="p", candidates=candidates))


def test_each_signal_says_how_easy_it_looks() -> None:
    four = seen("a", "a", "b", None, scores=(0.25, 0.75, 0.5, 0.5))
    assert predicted(four, "agreement") == 0.5  # an unreadable answer agrees with none
    assert predicted(four, "score") == 0.5
    assert predicted(four, "logprob") == pytest.approx(math.sqrt(0.5 * 0.25))
    assert predicted(seen(None, None), "agreement") == 0.0
    assert predicted(seen("a", "a"), "entropy") == predicted(seen("a"), "entropy") == 1.0
    assert predicted(seen("a", "b"), "entropy") == predicted(seen(None, None), "entropy") == 0.0
    assert 0.3 < (predicted(seen("a", "a", "a", "b"), "entropy") or 0.0) < 0.7


def test_samples_that_were_cut_say_nothing_of_difficulty() -> None:
    assert predicted(seen("a", None, None, "a", cut=(1, 2)), "agreement") == 1.0
    assert predicted(seen(None, None, cut=(0, 1)), "agreement") is None
    assert Difficulty()(seen(None, cut=(0,))) is None and predicted([], "score") is None


def test_what_a_signal_needs_is_named() -> None:
    with pytest.raises(ConfigurationError, match="pass verifier="):
        predicted(seen("a", "b", scores=(0.5, None)), "score")
    with pytest.raises(ConfigurationError, match="logprobs"):
        predicted([Scored(Problem("?"), text="x")], "logprob")


def test_bins_by_absolute_thresholds() -> None:
    difficulty = Difficulty(signal="agreement", edges=(0.35, 0.7))
    assert [difficulty.bin_of(e) for e in (1.0, 0.7, 0.69, 0.35, 0.34, 0.0)] == [0, 0, 1, 1, 2, 2]
    assert difficulty.bins == 3 and difficulty(seen("a", "b", "c", "d")) == 2
    assert Difficulty(edges=()).bins == 1 and Difficulty(edges=()).bin_of(0.0) == 0


@pytest.mark.parametrize("bins", [1, 2, 3, 5])
def test_bins_by_quantiles_are_of_nearly_equal_size(bins: int) -> None:
    eases = [((37 * i) % 100) / 100 for i in range(100)]
    difficulty = Difficulty.fit(eases, signal="score", bins=bins)
    sizes = [sum(difficulty.bin_of(e) == b for e in eases) for b in range(bins)]
    assert difficulty.bins == bins and max(sizes) - min(sizes) <= 1


def test_equal_eases_leave_no_bin_empty() -> None:
    for eases in ([0.5] * 9, [0.0] * 8 + [1.0], [0.0] + [1.0] * 8, [0.0, 0.5, 1.0] * 3):
        difficulty = Difficulty.fit(eases, signal="score", bins=5)
        assert {difficulty.bin_of(e) for e in eases} == set(range(difficulty.bins))
    with pytest.raises(ConfigurationError, match="fold empty"):
        quantile_edges([], 3)


@pytest.mark.parametrize(
    "wrong", [{"signal": "x"}, {"edges": (0.5, 0.5)}, {"edges": (0.9, 0.1)}, {"edges": (2.0,)}, {"edges": (True,)}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"Difficulty: (signal|edges)="):
        Difficulty(**wrong)  # type: ignore[arg-type]


def test_it_survives_a_round_trip() -> None:
    one = Difficulty(signal="logprob", edges=(0.2, 0.9))
    assert Difficulty.from_dict(json.loads(json.dumps(one.to_dict()))) == one
