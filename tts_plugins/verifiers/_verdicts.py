"""What a judge said, read strictly: a verdict is found whole and in range, or it is none. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tts_plugins.types import Generation

_OPEN = re.compile(r'\{\s*"')
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_LABEL = re.compile(r"\s*(\d)(?!\d)")
_ENOUGH = 0.5  # of the probability must be on the scale's tokens, else the judge was about to say something else

Alternatives = Sequence[Sequence[tuple[str, float]]]


class Unreadable(ValueError):
    """A reply that is no verdict.

    `reason` is in words of this package only, so that it may stand in the prompt of a repair, outside of all quotes;
    what came may be an attacker's, and stands in the message.
    """

    def __init__(self, reason: str, came: object = None) -> None:
        super().__init__(reason if came is None else f"{reason}; it is {excerpt(str(came))}")
        self.reason = reason


def excerpt(text: str, size: int = 100) -> str:
    """A text in one short line, for an error."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= size else flat[: size - 1] + "…")


def read_verdict(text: str, key: str) -> dict[str, Any]:
    """The one JSON object of a reply, which carries the key. Prose and fences around it are tolerated.

    Raises:
        Unreadable: there is no object, more than one, a broken one, a member twice, or another key.
    """
    body, found, at = _THOUGHT.sub("", text), list[Any](), 0
    if not body.strip():
        raise Unreadable("the reply is empty")
    while (start := _OPEN.search(body, at)) is not None:
        try:
            value, at = _DECODER.raw_decode(body, start.start())
        except (ValueError, RecursionError) as error:
            raise Unreadable("its JSON is broken", f"{body[start.start() :][:60]} ({error})") from error
        found.append(value)
    if len(found) != 1:
        count = "no JSON object" if not found else f"{len(found)} JSON objects where one is due"
        raise Unreadable(f"{count} in the reply", body)
    verdict: dict[str, Any] = found[0]
    given = verdict.get("key")
    if given != key:
        raise Unreadable("its key is not the one that was asked for, so it may not be the judge's own", given)
    return verdict


def number(verdict: Mapping[str, Any], name: str, scale: tuple[int, int]) -> float:
    """A member of the verdict that is a number on the scale.

    Raises:
        Unreadable: it is missing, no number, not finite, or off the scale.
    """
    return in_range(verdict.get(name, "missing"), name, scale)


def in_range(value: Any, name: str, scale: tuple[int, int]) -> float:
    """The value where it is a number on the scale.

    Raises:
        Unreadable: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Unreadable(f"{name} is not a number from {scale[0]} to {scale[1]}", value)
    if not scale[0] <= value <= scale[1]:
        raise Unreadable(f"{name} is off the scale from {scale[0]} to {scale[1]}", value)
    return float(value)


def text_of(verdict: Mapping[str, Any], name: str) -> str:
    """A member that is a text; an absent one is empty.

    Raises:
        Unreadable: it is something else.
    """
    value = verdict.get(name, "")
    if not isinstance(value, str):
        raise Unreadable(f"{name} is not a text", value)
    return value


def unit(value: float, scale: tuple[int, int]) -> float:
    """A number on the scale as one from 0 to 1."""
    return min(1.0, max(0.0, (value - scale[0]) / (scale[1] - scale[0])))


def top_logprobs(generation: Generation) -> Alternatives | None:
    """For each token, itself and then its alternatives, with log-probabilities; None where they were not kept."""
    kept: Alternatives | None = getattr(generation, "top_logprobs", None)
    return kept or None


def expectation(generation: Generation, name: str, scale: tuple[int, int]) -> float | None:
    """The expected number at the place where the reply gives `name`, over the scale's tokens (G-Eval, 2303.16634).

    Returns:
        None where there are no log-probabilities, the place is not found, or too little probability is on the scale:
        its numbers have one digit each, since of longer ones a token may be only the first part.
    """
    alternatives = top_logprobs(generation)
    if alternatives is None or scale[1] > 9:
        return None
    text = "".join(token[0][0] for token in alternatives)
    # A quote inside a JSON text is escaped, so that this pattern matches a member's name only.
    places = list(re.finditer(rf'"{re.escape(name)}"\s*:\s*(?=\d)', text))
    if len(places) != 1:
        return None
    index, inside = _token_at(alternatives, places[0].end())
    lead = alternatives[index][0][0][:inside]
    mass: dict[int, float] = {}
    for token, logprob in _unique(alternatives[index]):
        # Alternatives share what the chosen token has before its digit («: 4»); blanks do not matter.
        rest = token[len(lead) :] if lead.strip() and token.startswith(lead) else token
        match = _LABEL.match(rest)
        if match and scale[0] <= int(match[1]) <= scale[1]:
            mass[int(match[1])] = mass.get(int(match[1]), 0.0) + math.exp(min(logprob, 0.0))
    total = math.fsum(mass.values())
    return math.fsum(v * p for v, p in mass.items()) / total if total >= _ENOUGH else None


def p_yes(alternatives: Sequence[tuple[str, float]]) -> float | None:
    """The probability of Yes among Yes and No at one token; None where too little is on either."""
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in _unique(alternatives):
        word = token.strip().strip("*\"'.").lower()
        if word in mass:
            mass[word] += math.exp(min(logprob, 0.0))
    total = mass["yes"] + mass["no"]
    return mass["yes"] / total if total >= _ENOUGH else None


def word_at(alternatives: Alternatives, offset: int) -> Sequence[tuple[str, float]] | None:
    """The alternatives of the token that begins a word at this place of the text, where a token begins it."""
    index, inside = _token_at(alternatives, offset)
    return alternatives[index] if not alternatives[index][0][0][:inside].strip() else None


def _token_at(alternatives: Alternatives, offset: int) -> tuple[int, int]:
    before = 0
    for index, token in enumerate(alternatives):
        size = len(token[0][0])
        if before <= offset < before + size:
            return index, offset - before
        before += size
    return len(alternatives) - 1, 0


def _unique(alternatives: Iterable[tuple[str, float]]) -> Iterable[tuple[str, float]]:
    """Each token once: the chosen one stands first, and mostly among its alternatives again."""
    return dict(reversed(list(alternatives))).items()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return made


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
