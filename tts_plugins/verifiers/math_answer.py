"""Whether a mathematical answer equals the known one, by math-verify in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

from tts_plugins._internal.config import check_count
from tts_plugins.answers import equivalent, extract, normalise, number_value, without_thoughts
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Score
from tts_plugins.verifiers._free import FreeVerifier
from tts_plugins.verifiers._math_process import MathProcesses
from tts_plugins.verifiers.grouping.guards import may_be_equal, plain

_BOX = re.compile(r"\$?\\boxed\{([^{}$]+)\}\$?")
_FORMULA = re.compile(r"\$([^$]+)\$")
_FEW_WORDS = re.compile(r"[\s,;.]*+(?:[^\W\d_]++[\s,;.]*+){0,3}")
_CONNECTIVES = re.compile(r"[\s,;.]*+(?:(?:and|or)\b[\s,;.]*+)*")
_PARTS = 6
_DECIMAL = re.compile(r"-?\d+[.,](?:\d{2}|\d{4,})")
_LONG = 4000  # characters of a text in which math-verify may look for the answer itself


class MathAnswer(FreeVerifier):
    r"""Scores 1 where the candidate's answer equals the known one, else 0. For benchmarks, and for training verifiers.

    Args:
        gold: the known answer, or a function from the problem to it; `problem.metadata["answer"]` where left out.
        timeout: seconds for one comparison. Some take for ever; the worker is then ended and another is started.
        workers: processes, started when they are needed.

    Answers that are equal in normal form (`tts_plugins.answers.normalise`) need no worker. What is graded is the answer
    as it was written, never its key: units, letters and primes have to be the same. A candidate without a
    readable answer scores 0 and says so. `close()` ends the workers; they end with the program, too.

    Raises:
        ConfigurationError: a field is out of range; at the call, the problem has no known answer.
        MissingExtraError: math-verify is not installed.
    """

    name = "MathAnswer"

    def __init__(
        self, gold: str | Callable[[Problem], str] | None = None, *, timeout: float = 10.0, workers: int = 1
    ) -> None:
        if not timeout > 0:
            raise ConfigurationError(f"MathAnswer: timeout={timeout!r} must be above 0 seconds")
        check_count("MathAnswer", "workers", workers)
        self._gold = gold
        self._processes = MathProcesses("MathAnswer", timeout=timeout, workers=workers)

    @property
    def timeout(self) -> float:
        """Seconds for one comparison."""
        return self._processes.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._processes.timeout = seconds

    async def score(self, run: Run, candidate: Candidate) -> Score:
        """1 or 0.

        Raises:
            VerifierError: the comparison took too long, or the worker failed.
        """
        gold = self.gold(candidate.problem)
        answer = candidate.answer
        if answer is None and (found := extract(candidate.text)) is not None:
            answer = found.raw  # what normal form takes away (case, signs) may matter to a parser
        text = without_thoughts(candidate.text)[-_LONG:].strip()
        if answer is None and (not text or "\n" in text):
            return Score(value=0.0, feedback="no answer could be read")
        known, given = _as_stated(gold), plain(answer or "")
        if answer is not None and _same_writing(answer, gold, known):
            return Score(value=1.0)
        request = {"gold": known, "answer": given, "text": text, "whole_gold": f"${known}$"}
        reply = await self._processes.ask(request)
        if "error" in reply:
            raise VerifierError(f"MathAnswer: {given[:80]!r} against {gold[:80]!r}: {reply['error']}")
        if not reply["gold"]:
            return Score(value=0.0, feedback="it differs from the known answer, which is not a formula")
        equal = reply["equal"] and may_be_equal(known, given, strict=False)
        said = str(reply["said"])
        # What math-verify itself finds in the text counts where no other answer was read in it.
        if not equal and reply["whole"] and (answer is None or _consistent(said, given)):
            equal = may_be_equal(known, said, strict=False)
        return Score(value=float(equal), feedback="" if equal else "it differs from the known answer")

    def equal_here(self, answer: str, gold: str) -> bool:
        """Whether an answer equals the known one, in the calling thread; False where it could not be found out."""
        known, given = _as_stated(gold), plain(answer)
        if equivalent(answer, gold) or _same_writing(answer, gold, known):
            return True
        values = number_value(answer), number_value(gold)
        if all(value is not None and value.denominator == 1 for value in values):
            return False  # whole numbers, and different ones
        if not may_be_equal(known, given, strict=False):
            return False
        return bool(self._processes.ask_here({"gold": known, "answer": given}).get("equal"))

    def gold(self, problem: Problem) -> str:
        """The known answer.

        Raises:
            ConfigurationError: there is none.
        """
        gold = self._gold(problem) if callable(self._gold) else self._gold
        gold = problem.metadata.get("answer") if gold is None else gold
        if gold is None or not str(gold).strip():
            raise ConfigurationError(
                "MathAnswer: the problem has no known answer; pass gold=…, or Problem(…, metadata={'answer': …})"
            )
        return str(gold)

    def close(self) -> None:
        """End the workers; a later call starts them again."""
        self._processes.close()


def _as_stated(gold: str) -> str:
    """The known answer without what is said around it; all of its parts where it is a short list of formulas."""
    for pattern, between in ((_BOX, _FEW_WORDS), (_FORMULA, _CONNECTIVES)):
        parts, around = pattern.findall(gold), pattern.sub(" ", gold)
        if 1 < len(parts) <= _PARTS and between.fullmatch(around):
            return ", ".join(map(plain, parts))
    stated = extract(gold)
    return plain(gold if stated is None else stated.raw)


def _same_writing(answer: str, gold: str, known: str) -> bool:
    """Whether an answer and the known one have one key, or differ only in a decimal comma for a decimal point."""
    key = normalise(answer)
    if key in (normalise(gold), normalise(known)):
        return True
    # `1,234` may be grouped, and `1,2` a list; `1000,99` beside a known 1000.99 is neither.
    written, other = answer.strip(), known.strip()
    return (
        written != other
        and all(_DECIMAL.fullmatch(n) for n in (written, other))
        and (written.replace(",", ".") == other.replace(",", "."))
    )


def _consistent(said: str, answer: str) -> bool:
    """Whether what math-verify read is the answer that was read here, or holds it, or is a part of it."""
    ours, theirs = (re.sub(r"[\s$\\]|left|right|boxed", "", text) for text in (answer, said))
    return bool(ours and theirs) and (ours in theirs or theirs in ours)
