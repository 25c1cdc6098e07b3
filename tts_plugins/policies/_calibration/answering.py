"""Which options suit a policy that may abstain: those whose confidence tells right answers from wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tts_plugins.policies._calibration.replayed_trials import Trials, select_of
from tts_plugins.policies._calibration.table import Option
from tts_plugins.policies._stopping.walks import Floats
from tts_plugins.selection import Select

_WORDS: Mapping[Select, str] = {"majority": "vote", "weighted": "weighted vote", "best": "best score"}
_RESAMPLES, _SURE = 200, 0.9  # in this share of the resamples, the best score has to be ahead of an agreement


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """How sure an option is of its choice on each walk, and whether that is right: (problems, orders) each."""

    confidences: Floats
    right: Floats

    @classmethod
    def of(cls, option: Option, trials: Trials) -> Sureness:
        """Replay an option on the walks; its confidence is that of `Result.confidence`."""
        assert option.sampling is not None and option.at is not None
        select, rows = select_of(option.sampling), np.arange(len(option.at))
        first = trials.paths[select].state.first[rows, option.at - 1]
        found = first if select == "best" else first / option.at
        right = trials.right(option.sampling, option.at)
        return cls(confidences=found.reshape(-1, trials.orders), right=right.reshape(-1, trials.orders))

    def answers(self, risk: float, problems: Sequence[int] | slice = slice(None)) -> tuple[float, float]:
        """Estimate the share of questions that can be answered at a risk; then less the area under the curve.

        The curve is the share of wrong answers among the surest, by how many are answered; answers of one confidence
        are taken together. Each point counts in full where none is wrong, half at the risk, not at all at twice the
        risk. That hangs on few answers less than the point where the curve crosses the risk does, so that the best of
        many options on a few dozen problems is less often the luckiest. The area decides where nothing can be answered.
        """
        confidences, right = self.confidences[problems].ravel(), self.right[problems].ravel()
        order = np.argsort(-confidences, kind="stable")
        sure = confidences[order]
        ends = np.nonzero(np.append(sure[1:] != sure[:-1], True))[0]
        wrong = np.cumsum(1 - right[order])[ends] / (ends + 1)
        width = np.diff(ends, prepend=-1) / len(order)
        return round(float((np.maximum(0, 1 - wrong / (2 * risk)) * width).sum()), 9), -float((wrong * width).sum())


def answering(options: Sequence[Option], trials: Trials, risk: float) -> tuple[list[Option], tuple[str, ...]]:
    """Return the options of the way to choose that should answer most at a risk, and say why it was taken.

    Ways to choose are compared at all samples. An option with fewer stays if it should answer no less. What was
    measured elsewhere has no confidence, and stays only where there is nothing else.
    """
    found = [(o, Sureness.of(o, trials)) for o in options if o.sampling is not None]
    shares = [sureness.answers(risk) for _, sureness in found]
    whole: dict[Select, Sureness] = {}
    for i in sorted(range(len(found)), key=lambda i: (found[i][0].full, shares[i]), reverse=True):
        whole.setdefault(select_of(found[i][0].strategy), found[i][1])
    if not whole:
        return list(options), ()
    way, doubt = way_of(whole, risk, exact=not trials.graded)
    least = whole[way].answers(risk)[0]
    kept = [
        o for (o, _), (share, _) in zip(found, shares, strict=True) if o.select == way and (o.full or share >= least)
    ]
    return kept, (_why(way, whole, risk, doubt),) if len(whole) > 1 else ()


def way_of(whole: Mapping[Select, Sureness], risk: float, *, exact: bool) -> tuple[Select, bool]:
    """Return the way to choose that should answer most, and whether an agreement was taken out of doubt instead."""
    shares = {select: sureness.answers(risk) for select, sureness in whole.items()}
    first = max(shares, key=lambda select: (*shares[select], (select == "best") == exact))  # an exact check ends early
    agreements = [select for select in shares if select != "best"]
    if first != "best" or exact or not agreements:
        return first, False
    safe = max(agreements, key=lambda select: shares[select])
    problems = len(whole[safe].right)
    drawn = np.random.default_rng(0).integers(problems, size=(_RESAMPLES, problems))
    ahead = np.mean([whole["best"].answers(risk, some) > whole[safe].answers(risk, some) for some in drawn])
    return ("best", False) if ahead >= _SURE else (safe, True)


def _why(way: Select, whole: Mapping[Select, Sureness], risk: float, doubt: bool) -> str:
    """Say why this way to choose was taken, to someone who has never seen a risk-coverage curve."""
    problems = len(whole[way].right)
    shares = {select: sureness.answers(risk)[0] for select, sureness in whole.items()}
    listed = ", ".join(f"{_WORDS[s]} {shares[s]:.0%}" for s in sorted(shares, key=lambda s: (s != way, -shares[s])))
    reason = (
        f"{problems} problems are too few to show that the best score knows better when it is wrong"
        if doubt
        else "its confidence tells right answers from wrong ones best"
    )
    said = (
        f"{_WORDS[way]} was taken because unsure questions get no answer: {reason}. Share of questions that each could "
        f"answer with {100 * risk:.3g}% of the answers wrong, estimated on {problems} problems: {listed}"
    )
    right = {select: float(sureness.right.mean()) for select, sureness in whole.items()}
    top = max(right, key=lambda select: right[select])
    if right[top] > right[way]:
        said += (
            f". Where all questions are answered, {_WORDS[top]} is right more often ({right[top]:.3f} against "
            f"{right[way]:.3f})"
        )
    return said
