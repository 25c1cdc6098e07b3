"""Read what a judge said: a verdict must be whole, in range, and readable in one way only. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tts_plugins._internal.values import is_number
from tts_plugins.answers import unfinished, without_thoughts
from tts_plugins.types import Generation
from tts_plugins.verifiers._lenient_json import Found, objects

# "4", "4/5", "4 out of 5"
_AS_TEXT = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?:\s*(?:/|out of|of)\s*(?P<of>\d+))?", re.IGNORECASE)
# Escapes of JSON that a critique can only have got from commands of LaTeX: \\frac, \\beta, \\times, \\rho.
_LATEX = re.compile(r"[\f\b]|\t(?=imes|ext|heta|an\b|riangle|o\b)|\r(?=ho|ight)")
_LABEL = re.compile(r"\s*(\d)(?!\d)")
_ENOUGH = 0.5  # of the probability must be on the scale's tokens, else the judge was about to say something else

Alternatives = Sequence[Sequence[tuple[str, float]]]


class Unreadable(ValueError):
    """A reply that is not a verdict.

    `reason` is in words of this package only, so that it may stand in the prompt of a repair, outside of all quotes;
    what came may be an attacker's, and stands in the message.
    """

    def __init__(self, reason: str, came: object = None) -> None:
        super().__init__(reason if came is None else f"{reason}; it is {excerpt(str(came))}")
        self.reason = reason


def excerpt(text: str) -> str:
    """A text in one short line, for an error."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 100 else flat[:99] + "…")


def read_verdict(text: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    """The one verdict of a reply: the JSON object that carries the key. Thoughts, prose and fences are taken off.

    It is read as models write JSON (see `_lenient_json`): alone, wrapped in one more object or in a text, said twice in
    the same words. Objects without the key are not the judge's, and do not count.

    Args:
        optional: take an object without any key where none has the right one and no other has a key.

    Raises:
        Unreadable: there is no object with the key, a broken one, or two that differ.
    """
    if unfinished(text):
        raise Unreadable("the reply ends inside of a thought", text[-100:])
    body = without_thoughts(text).strip()
    if not body:
        raise Unreadable("the reply is empty")
    if body[0] == '"' and body[-1] == '"':
        body = _decoded(body)
    found, other, keyless = list[Found](), list[object](), list[Found]()
    for each in objects(body):
        if each.value is None:
            if key in body[each.start : each.end].lower():
                raise Unreadable("its JSON is broken", body[each.start : each.start + 60])
            other.append(None)
            continue
        given = _unwrapped(each.value).get("key")
        if isinstance(given, str) and given.strip().lower() == key:
            found.append(each)
        elif given is None:
            keyless.append(each)
        else:
            other.append(given)
    if optional and not found and not other:
        found = keyless
    if not found:
        if any(given is not None for given in other):
            raise Unreadable("its key is not the one that was asked for, so it may not be the judge's own", other)
        what = "its JSON is broken" if other else "no JSON object with the key in the reply"
        raise Unreadable(what if other or keyless else "no JSON object in the reply", body)
    verdict = _unwrapped(found[0].value or {})
    if any(_unwrapped(each.value or {}) != verdict for each in found):
        raise Unreadable("it holds two verdicts that differ", body)
    _check_rest(body, found, verdict)
    return verdict


def _check_rest(body: str, found: Sequence[Found], verdict: Mapping[str, Any]) -> None:
    """Raise where members of a verdict stand outside of it too: a quoted candidate may have closed it early."""
    at, rest = 0, list[str]()
    for each in found:
        rest.append(body[at : each.start])
        at = each.end
    rest.append(body[at:])
    names = "|".join(re.escape(name) for name in verdict)
    if re.search(rf"[\"'“”„]\s*(?:{names})\s*[\"'“”„]\s*[:：]", "\n".join(rest)):
        raise Unreadable("parts of a verdict stand outside of its JSON object", body)


def _decoded(body: str) -> str:
    """Return the text that a reply holds as one JSON string; the reply itself if it is not one."""
    try:
        value = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return body
    return value if isinstance(value, str) else body


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """The verdict in an object that holds nothing else."""
    for _ in range(3):
        inner = next(iter(value.values())) if len(value) == 1 else None
        if not isinstance(inner, dict):
            return value
        value = inner
    return value


def number(verdict: Mapping[str, Any], name: str, scale: tuple[int, int]) -> float:
    """A member of the verdict that is a number on the scale.

    Raises:
        Unreadable: it is missing, no number, not finite, or off the scale.
    """
    return in_range(verdict.get(name, "missing"), name, scale)


def in_range(value: Any, name: str, scale: tuple[int, int]) -> float:
    """The value where it is a number on the scale; `"4"`, `"4/5"` and `"4 out of 5"` are too, on a scale up to 5.

    Raises:
        Unreadable: it is not.
    """
    plain = value
    if isinstance(value, str) and (match := _AS_TEXT.fullmatch(value.strip())) and match["of"] in (None, str(scale[1])):
        plain = float(match["number"])
    if not is_number(plain):
        raise Unreadable(f"{name} is not a number from {scale[0]} to {scale[1]}", value)
    if not scale[0] <= plain <= scale[1]:
        raise Unreadable(f"{name} is off the scale from {scale[0]} to {scale[1]}", value)
    return float(plain)


def text_of(verdict: Mapping[str, Any], name: str) -> str:
    """A member that is a text; an absent one, and null, are empty.

    Raises:
        Unreadable: it is something else.
    """
    value = verdict.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{name} is not a text", value)
    return _LATEX.sub(lambda m: {"\f": r"\f", "\b": r"\b", "\t": r"\t", "\r": r"\r"}[m[0]], value)


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
        # Alternatives share what the chosen token has before its digit (': 4'); blanks do not matter.
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
