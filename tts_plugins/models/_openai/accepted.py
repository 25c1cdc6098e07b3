"""Which fields a server takes: what it refuses by name is left out, renamed or lowered, and kept so if that helped.

A refusal may quote the prompt, so a field counts as refused only if the server names it: as the `param` or `loc` of
its error, or by its exact name in words that the prompt does not have. A change that does not help is undone; no
change is made twice in one call; and what was changed is remembered only once a request went through. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tts_plugins._internal.error_bodies import ErrorBody, json_of

REFUSALS = (400, 409, 422, 501)
_SPARE = ("stream_options", "temperature", "seed")
_OLD, _NEW = "max_tokens", "max_completion_tokens"
_KINDS = "candidate|choice|completion|generation|sequence"
_SEVERAL = re.compile(
    rf"candidate_?count|(only|just|exactly|more than) (one|1|a single) ({_KINDS})|"
    rf"(multiple|several|number of) ({_KINDS})s|\bn_cmpl\b|\bslots?\b|\bbest_of\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.\-])\d{1,4}(?![\w.\-]*\w)")


@dataclass(frozen=True)
class Accepted:
    """What a server is known to take.

    Attributes:
        batch: choices that one request may ask for.
        without: fields that it refuses.
        limit: its name for `max_tokens`; None for the one in the request.
    """

    batch: int
    without: frozenset[str] = frozenset()
    limit: str | None = None

    def fit(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request without what is refused."""
        out = {key: value for key, value in body.items() if key not in self.without}
        if self.limit is not None and (other := _OLD if self.limit == _NEW else _NEW) in out:
            out[self.limit] = out.pop(other)
        return out

    def joined(self, other: Accepted) -> Accepted:
        """Return this, joined with what another call has found out meanwhile."""
        return Accepted(min(self.batch, other.batch), self.without | other.without, other.limit or self.limit)


@dataclass(slots=True)
class Fixes:
    """The changes that one call tries, one after the other.

    Attributes:
        now: what the next attempt sends.
    """

    now: Accepted
    _tried: tuple[str, ...] = ()
    _before: Accepted | None = None
    _said: str = ""

    def change(self, status: int, said: ErrorBody, body: Mapping[str, Any]) -> bool:
        """Return whether the request can be sent again, changed by what the server says is wrong with it.

        Args:
            body: as it was sent.
        """
        if status not in REFUSALS or said.overflow:
            return False
        if self._before is not None and said.text == self._said:
            self.now = self._before  # it did not help
        named = Named(said, body)
        for name, changed in self._possible(status, named, body):
            if name not in self._tried:
                self._tried += (name,)
                self._before, self._said, self.now = self.now, said.text, changed
                return True
        return False

    def _possible(self, status: int, named: Named, body: Mapping[str, Any]) -> list[tuple[str, Accepted]]:
        now, out = self.now, list[tuple[str, Accepted]]()
        n = body.get("n") or 1
        if n > 1 and (status == 501 or named.has("n") or named.matches(_SEVERAL)):
            allowed = max((k for k in map(int, _NUMBER.findall(named.text)) if 1 < k < n), default=1)
            out += [(f"n={k}", replace(now, batch=k)) for k in dict.fromkeys((allowed, 1))]
        if status == 501:
            return out
        if _OLD in body and _NEW in named.text:
            out.append((_NEW, replace(now, limit=_NEW)))
        elif _NEW in body and named.has(_NEW):
            out.append((_OLD, replace(now, limit=_OLD)))
        out += [(f, replace(now, without=now.without | {f})) for f in _SPARE if f in body and named.has(f)]
        return out


class Named:
    """What a refusal names."""

    def __init__(self, said: ErrorBody, body: Mapping[str, Any]) -> None:
        self.text = said.text.lower()
        self._fields = {name.lower() for name in said.fields} & {name.lower() for name in body}
        self._prompt = json_of([body.get("messages"), body.get("prompt"), body.get("tools")]).lower()

    def has(self, name: str) -> bool:
        """Return whether the server means this field of the request."""
        if self._fields:
            return name in self._fields
        word = re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w])")
        if word.search(self._prompt) is None and (len(name) > 1 or _parameter(name).search(self.text)):
            return word.search(self.text) is not None
        called = rf"(parameter|field|argument|option|property|input)s?:? *[\[({{]? *['\"`]{re.escape(name)}['\"`]"
        return re.search(called, self.text) is not None

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Return whether its words, which are not the prompt's, match."""
        return any(m.group().lower() not in self._prompt for m in pattern.finditer(self.text))


def _parameter(name: str) -> re.Pattern[str]:
    """Return a name of one letter as a field: quoted, compared with a number, or called a parameter."""
    follows = "=|>|<|≤|:|must|is|should|cannot|can|greater|larger|not|values?"
    return re.compile(rf"['\"`]{name}['\"`]|\b{name}\b *({follows})|(parameter|field|value of|for) {name}\b")
