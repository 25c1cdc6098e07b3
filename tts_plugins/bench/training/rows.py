"""Training rows from recorded samples, in the columns that TRL reads. Pure.

Formats: https://huggingface.co/docs/trl/dataset_formats. "sft" is prompt and completion, "dpo" a preference with an
explicit prompt, "kto" an unpaired preference, all three conversational; "prm" is stepwise supervision, which is text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from tts_plugins._internal.config import check_count, check_share
from tts_plugins.errors import ConfigurationError
from tts_plugins.pools import PoolCandidate, PoolProblem
from tts_plugins.selection import Aggregate, check_aggregate
from tts_plugins.steps import By
from tts_plugins.steps import split as steps_of_text

Format = Literal["sft", "dpo", "kto", "prm"]
Judge = Literal["score", "votes", "correct"]
FORMATS: tuple[Format, ...] = get_args(Format)
JUDGES: tuple[Judge, ...] = get_args(Judge)
Row = dict[str, Any]
_RECORD: Mapping[Judge, str] = {"score": "a score", "votes": "a readable answer", "correct": "a grade"}
_CUTS: tuple[By, ...] = get_args(By)  # a verifier's steps are those whose number is that of its scores


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is exported, and how candidates are told apart.

    Args:
        judge: what makes a candidate good: a verifier's "score"; "votes", the share of the problem's candidates that
            gave its answer; or "correct", the grade by the known answer. None takes scores where most candidates have
            them (the others are left out), else votes. With "correct", do not measure on these problems any more.
        min_score: the least score of a winner; also where the judge is another one.
        min_agreement: the least share of a problem's candidates that gave a winner's answer.
        min_margin: the least by which the winner of a pair is better than the loser, as the judge sees it; for "kto",
            the width of the band around a half within which a candidate gets no label.
        per_problem: winners, or pairs, of a problem at most.
        threshold: of a step's score, from which on the step counts as right ("prm").
        aggregate: how recorded step scores become one score.
        system: a system message in front of every prompt.

    Raises:
        ConfigurationError: a value is out of range.
    """

    judge: Judge | None = None
    min_score: float | None = None
    min_agreement: float = 0.0
    min_margin: float = 0.0
    per_problem: int = 1
    threshold: float = 0.5
    aggregate: Aggregate = "last"
    system: str | None = None

    def __post_init__(self) -> None:
        if self.judge is not None and self.judge not in JUDGES:
            raise ConfigurationError(f"export: judge={self.judge!r} is not known; use one of {', '.join(JUDGES)}")
        check_aggregate("export", self.aggregate)
        for name in ("min_agreement", "min_margin", "threshold"):
            check_share("export", name, getattr(self, name))
        if self.min_score is not None:
            check_share("export", "min_score", self.min_score)
        check_count("export", "per_problem", self.per_problem)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    record: PoolCandidate
    text: str
    worth: float
    score: float | None
    agreement: float


def check_format(value: object) -> None:
    """Raise unless it is a known format."""
    if value not in FORMATS:
        raise ConfigurationError(f"export: format={value!r} is not known; use one of {', '.join(FORMATS)}")


def training_rows(
    problems: Sequence[PoolProblem], format: Format, filters: Filters, dropped: Counter[str]
) -> list[Row]:
    """Return the rows of some problems, without repetitions; what is left out is counted in `dropped`, by its reason.

    Raises:
        ConfigurationError: an unknown format, or a judge whose records the pool does not have.
    """
    check_format(format)
    judge = judge_of(problems, filters)
    make = {"sft": _sft, "dpo": _dpo, "kto": _kto, "prm": _prm}[format]
    rows: list[Row] = []
    seen: set[tuple[str, ...]] = set()
    for problem in problems:
        if not problem.prompt or not problem.prompt.strip():
            dropped["problems without a prompt on record"] += 1
            continue
        judged = _judged(problem, judge, filters, dropped)
        for row in make(problem, judged, filters, dropped):
            key = tuple(map(words, row.values()))
            if key in seen:
                dropped["repeated rows"] += 1
                continue
            seen.add(key)
            rows.append(row)
    return rows


def words(value: Any) -> str:
    """Return a column's words, by which repetitions are known."""
    texts = [
        f"{v['role']}: {v.get('content')}" if isinstance(v, dict) else str(v)
        for v in (value if isinstance(value, list) else [value])
    ]
    return " ".join(" ".join(texts).split())


def judge_of(problems: Sequence[PoolProblem], filters: Filters) -> Judge:
    """Return what makes a candidate good: as it was chosen, else scores where most candidates have one, else votes.

    Raises:
        ConfigurationError: no candidate has a record of it.
    """
    candidates = [c for p in problems for c in p.candidates]
    scored = sum(c.scored(filters.aggregate) is not None for c in candidates)
    judge: Judge = filters.judge or ("score" if 2 * scored > len(candidates) else "votes")
    has: dict[Judge, Callable[[PoolCandidate], bool]] = {
        "score": lambda c: c.scored(filters.aggregate) is not None,
        "votes": lambda c: c.answer is not None,
        "correct": lambda c: c.correct is not None,
    }
    if candidates and not any(map(has[judge], candidates)):
        raise ConfigurationError(
            f"export: judge={judge!r}: not one of the {len(candidates)} candidates has {_RECORD[judge]} on record; use "
            f"another judge of {', '.join(JUDGES)}"
        )
    return judge


def _judged(problem: PoolProblem, judge: Judge, filters: Filters, dropped: Counter[str]) -> list[_Judged]:
    """Return the candidates that can be trained on, best first, each text once."""
    votes = Counter(c.answer for c in problem.candidates if c.answer is not None)
    found: dict[str, _Judged] = {}
    for c in problem.candidates:
        agreement = votes[c.answer] / len(problem.candidates) if c.answer is not None else 0.0
        score = c.scored(filters.aggregate)
        worth = {"score": score, "correct": None if c.correct is None else float(c.correct),
                 "votes": None if c.answer is None else agreement}[judge]  # fmt: skip
        reason = (
            "candidates without a text on record" if not c.text or not c.text.strip()
            else "truncated candidates" if c.truncated
            else f"candidates without {_RECORD[judge]} on record" if worth is None
            else None
        )  # fmt: skip
        if reason is not None or worth is None or c.text is None:
            dropped[str(reason)] += 1
            continue
        key = " ".join(c.text.split())
        if key in found:
            dropped["repeated candidates"] += 1
            continue
        found[key] = _Judged(record=c, text=c.text, worth=worth, score=score, agreement=agreement)
    return sorted(found.values(), key=lambda each: -each.worth)


def _good(each: _Judged, filters: Filters) -> bool:
    """Whether a candidate may be shown as a good one."""
    enough = filters.min_score is None or (each.score is not None and each.score >= filters.min_score)
    return enough and each.agreement >= filters.min_agreement and each.worth > 0


def _messages(problem: PoolProblem, filters: Filters) -> list[Row]:
    """Return the prompt as messages: the whole conversation where the problem is one."""
    asked = problem.extra.get("messages") or [{"role": "user", "content": problem.prompt}]
    system = [] if filters.system is None else [{"role": "system", "content": filters.system}]
    return [*system, *asked]


def _prompt(problem: PoolProblem, filters: Filters) -> str:
    """Return the prompt as one text."""
    said = _messages(problem, filters)
    if any(message["role"] not in ("system", "user") for message in said):
        return "\n\n".join(f"{message['role']}: {message.get('content')}" for message in said)
    return "\n\n".join(str(message.get("content")) for message in said)


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _sft(problem: PoolProblem, judged: Sequence[_Judged], filters: Filters, dropped: Counter[str]) -> Iterator[Row]:
    """Yield the problem's winners: the best candidates, as long as they are as good as the best.

    Where different answers share the first place, at most one of them is right, and nothing says which; full marks
    (all tests passed, graded as right) say that all of them are.
    """
    good = [each for each in judged if _good(each, filters) and each.worth >= judged[0].worth - 1e-12]
    if not good:
        dropped["problems without a winner"] += 1
    elif judged[0].worth < 1 and len({each.record.answer for each in good} - {None}) > 1:
        dropped["problems where different answers tie for the best"] += 1
        return
    for each in good[: filters.per_problem]:
        yield {"prompt": _messages(problem, filters), "completion": _said(each.text)}


def _dpo(problem: PoolProblem, judged: Sequence[_Judged], filters: Filters, dropped: Counter[str]) -> Iterator[Row]:
    """Yield pairs: the best against the worst, the second best against the second worst, and so on."""
    made = 0
    for best, worst in zip(judged, reversed(judged), strict=True):
        apart = best.worth - worst.worth
        same = best.record.answer is not None and best.record.answer == worst.record.answer
        if made == filters.per_problem or apart <= 0 or apart < filters.min_margin - 1e-12:
            break
        if same or not _good(best, filters):
            continue
        made += 1
        yield {"prompt": _messages(problem, filters), "chosen": _said(best.text), "rejected": _said(worst.text)}
    if not made:
        dropped["problems without a pair"] += 1


def _kto(problem: PoolProblem, judged: Sequence[_Judged], filters: Filters, dropped: Counter[str]) -> Iterator[Row]:
    """Yield candidates with a label: better than a half, or worse, and not within the margin."""
    for each in judged:
        apart = each.worth - 0.5
        good = apart > 0 and _good(each, filters)
        if apart == 0 or abs(apart) < filters.min_margin / 2 - 1e-12 or (apart > 0 and not good):
            dropped["candidates too near to a half, or filtered"] += 1
            continue
        yield {"prompt": _messages(problem, filters), "completion": _said(each.text), "label": good}


def _prm(problem: PoolProblem, judged: Sequence[_Judged], filters: Filters, dropped: Counter[str]) -> Iterator[Row]:
    """Yield solutions in steps, each step with its label; stepwise supervision is text, not a conversation."""
    for each in judged:
        scores = each.record.step_scores
        cuts = ([step.text for step in steps_of_text(each.text, by)] for by in _CUTS)
        steps = next((cut for cut in cuts if len(cut) == len(scores)), [])
        if not steps:
            unlike = (
                "candidates whose steps do not match their step scores" if scores else "candidates without step scores"
            )
            dropped[unlike] += 1
            continue
        yield {
            "prompt": _prompt(problem, filters),
            "completions": steps,
            "labels": [score >= filters.threshold for score in scores],
        }
