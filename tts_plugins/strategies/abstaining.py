"""When a solve gives no answer, since its choice is not sure enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tts_plugins.confidence import support_when_unknown
from tts_plugins.errors import ConfigurationError
from tts_plugins.protocols import Run, Strategy
from tts_plugins.strategies.escalation import Escalation, sure_enough
from tts_plugins.types import Abstained, OnAbstain, Problem, Scored


@dataclass(frozen=True, kw_only=True)
class Abstaining:
    """What `abstain_below`, `on_abstain` and `escalate` of a solve say.

    Attributes:
        below: the least confidence with which a question is answered; None takes what the strategy itself says.
    """

    below: float | None = None
    on: OnAbstain = "none"
    escalation: Escalation | None = None

    @classmethod
    def of(cls, owner: str, below: Any, on: Any, escalate: Any, strategy: Any) -> Abstaining:
        """Return the settings, checked; `options.check_common` has checked each by itself.

        Raises:
            ConfigurationError: they do not go together, or `escalate` is not a way to escalate.
        """
        if below is None and on == "none" and escalate is None:
            return ALWAYS_ANSWERING
        check_together(owner, below, on, escalate, strategy)
        return cls(below=below, on=on, escalation=None if escalate is None else Escalation.of(owner, escalate))

    async def choose(self, strategy: Strategy, run: Run, problem: Problem) -> Scored:
        """Return what the strategy chooses, or what the escalation does where that is not sure enough."""
        if self.escalation is None or not self.escalation.asks:
            return await strategy(run, problem)
        return await self.escalation.after(strategy, self.below, run, problem)


ALWAYS_ANSWERING = Abstaining()


def check_together(owner: str, below: Any, on: Any, escalate: Any, strategy: Any) -> None:
    """Raise unless `abstain_below`, `on_abstain` and `escalate` go together, with this strategy."""
    if (on == "escalate") != (escalate is not None):
        missing = "escalate= a larger model, a strategy or 'person'" if escalate is None else "on_abstain='escalate'"
        raise ConfigurationError(f"{owner}: on_abstain={on!r} and escalate={escalate!r}; pass {missing} too")
    if on != "none" and below is None and not getattr(strategy, "abstains", False):
        raise ConfigurationError(
            f"{owner}: on_abstain={on!r} without abstain_below, so that nothing is ever withheld; pass "
            "abstain_below= a confidence from 0 to 1, or a policy that was calibrated with abstain_risk="
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How sure a solve is of its choice, and whether it answers; the fields are those of `Result`."""

    confidence: float | None
    agreement: float | None
    abstained: Abstained | None
    escalated: bool

    @classmethod
    def of(
        cls, best: Scored, seen: Sequence[Scored], said: Mapping[str, Any] | None, below: float | None,
        doubts: Sequence[str], person: bool,
    ) -> Verdict:  # fmt: skip
        """Judge the choice of a solve that has ended.

        Args:
            said: what the strategy said of the choice, as `Run.note("choice", …)` has it.
            below: the least confidence with which the question is answered; None answers always.
            person: whether a person is to be asked then.
            doubts: what makes the choice doubtful, or kept an escalation from answering.
        """
        said = said or {}
        if "agreement" not in said:
            said = {**said, **vars(support_when_unknown(seen, best))}
        confidence, escalated, abstained = said["confidence"], bool(said.get("escalated")), None
        if below and not sure_enough(confidence, below, escalated=escalated):
            again = "after the escalation " if escalated else ""
            reason = "; ".join([again + _reason(confidence, below), *doubts])
            abstained = Abstained(below=below, confidence=confidence, agreement=said["agreement"], reason=reason,
                                  person=person)  # fmt: skip
        return cls(confidence=confidence, agreement=said["agreement"], abstained=abstained, escalated=escalated)


def _reason(confidence: float | None, below: float) -> str:
    if confidence is None:
        return f"nothing says how sure the answer is, and abstain_below is {below:g}"
    return f"the confidence is {_shown(confidence, below)}, below {below:g}"


def _shown(confidence: float, below: float) -> str:
    """Return a confidence with as many digits as tell it from the threshold."""
    short = f"{confidence:.2f}"
    return short if float(short) < below else f"{confidence:.6g}"
