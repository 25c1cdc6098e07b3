"""An upper bound of the tokens of a prompt that no server has counted yet. Pure."""

from __future__ import annotations

import json
import marshal
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["PromptBound", "Written"]

# A chat template adds role names and separators; no known one adds more than this for a message.
_PER_MESSAGE, _PER_PROMPT = 16, 64
# What a template may add to one prompt and not to another of the same shape, such as a date; a tokeniser's first blank.
_MARGIN = 16

# Of an image, a recording or a file: neither its bytes nor its address tell. Most models take 70 to 5,000 for an image;
# Qwen's take up to this many. One that takes more raises the bound, as a template does.
_PER_MEDIUM = 16_384
_MEDIUM = re.compile("image|audio|video|file|document|media")

_REMEMBERED = 64 * 1024  # bytes of the longest shape that is kept

_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


@dataclass(slots=True)
class Written:
    """A prompt as it is sent.

    Attributes:
        key: what it is known by.
        shape: the same of all but the texts: roles, tools, and other fields.
        content: bytes of its texts.
        tokens: tokens at most, without what a template adds to each prompt.
        media: images, recordings and files.
    """

    key: int
    shape: int | None
    content: int
    tokens: int
    media: int

    @classmethod
    def of(cls, prompt: Any) -> Written:
        """Read messages with tools and the like; return what was read before as it is."""
        if isinstance(prompt, Written):
            return prompt
        if (texts := _plain_texts(prompt)) is not None:
            frame, around = _plain_frame(tuple([message["role"] for message in prompt["messages"]]))
            content = sum([_bytes(text) for text in texts])
            return cls(hash((frame, *texts)), frame, content, content + around, 0)
        ids = prompt.get("prompt") if isinstance(prompt, Mapping) else None
        if isinstance(ids, list):
            return cls(hash(_ENCODER.encode(prompt)), None, 0, len(ids), 0)  # they are tokens already
        bare, texts, media = _parted(prompt)
        shape, around = _frame(bare)
        content = sum(_bytes(text) for text in texts)
        around += _PER_MESSAGE * (len(prompt.get("messages", ())) if isinstance(prompt, Mapping) else 1)
        if not media:
            return cls(hash((shape, *texts)), shape, content, content + around, 0)
        # One image says nothing of the next one, so nothing is learnt of the shape.
        around += sum(most for _, most in media)
        return cls(hash((shape, *texts, *(key for key, _ in media))), None, content, content + around, len(media))


def _plain_texts(prompt: Any) -> list[str] | None:
    """Return the texts of a prompt that is only messages of a role and a text, as most are; else None."""
    if type(prompt) is not dict or len(prompt) != 1 or type(messages := prompt.get("messages")) is not list:
        return None
    texts = list[str]()
    for message in messages:
        if type(message) is not dict or len(message) != 2 or type(message.get("role")) is not str:
            return None
        text = message.get("content")
        if type(text) is not str:
            return None
        texts.append(text)
    return texts


@lru_cache(maxsize=256)
def _plain_frame(roles: tuple[str, ...]) -> tuple[int, int]:
    """Return the shape of such a prompt, and the most tokens around its texts."""
    shape, around = _encoded({"messages": [{"role": role, "content": None} for role in roles]})
    return shape, around + _PER_MESSAGE * len(roles)


def _frame(bare: Any) -> tuple[int, int]:
    """Return the shape of a prompt without its texts, and its bytes."""
    try:
        key = marshal.dumps(bare, 2)  # equal bytes for equal values; a fifth of the time of JSON
    except ValueError:  # it holds an object of another kind
        return _encoded(bare)
    return _remembered(key) if len(key) < _REMEMBERED else _encoded(bare)


@lru_cache(maxsize=64)
def _remembered(key: bytes) -> tuple[int, int]:
    # A judge sends one schema, and an agent the same tools, each time.
    return _encoded(marshal.loads(key))


def _encoded(bare: Any) -> tuple[int, int]:
    text = _ENCODER.encode(bare)
    return hash(text), _bytes(text)


def _parted(prompt: Any) -> tuple[Any, list[str], list[tuple[int, int]]]:
    """Return the prompt without its texts and media, the texts, and a key and the most tokens of each medium."""
    if not isinstance(prompt, Mapping):
        return (None, [prompt], []) if isinstance(prompt, str) else (prompt, [], [])
    frame, texts, media = dict(prompt), list[str](), list[tuple[int, int]]()
    if isinstance(text := frame.get("prompt"), str):
        texts.append(text)
        frame["prompt"] = None
    if isinstance(messages := frame.get("messages"), list | tuple):
        frame["messages"] = bare = list[Any]()
        for message in messages:
            inner = message.get("content") if isinstance(message, Mapping) else message
            if isinstance(inner, str):
                texts.append(inner)
                message = {**message, "content": None} if isinstance(message, Mapping) else None
            elif (found := _media_in(inner))[0]:
                media += found[0]
                message = {**message, "content": found[1]} if isinstance(message, Mapping) else found[1]
            if isinstance(message, Mapping) and (names := [name for name in message if _MEDIUM.search(str(name))]):
                media += [m for name in names for each in _listed(message[name]) if (m := _medium({name: each}))]
                message = {name: value for name, value in message.items() if name not in names}
            bare.append(message)
    return frame, texts, media


def _listed(value: Any) -> tuple[Any, ...]:
    """Return the parts of a value, of which None has none."""
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


def _media_in(parts: Any) -> tuple[list[tuple[int, int]], list[Any]]:
    """Return the media of a message's parts, as `_medium` has them, and the other parts."""
    parts = _listed(parts)
    found = [_medium(part) for part in parts]
    kept = [part for part, medium in zip(parts, found, strict=True) if medium is None]
    return [medium for medium in found if medium is not None], kept


def _medium(part: Any) -> tuple[int, int] | None:
    """Return a key of an image, a recording or a file and the tokens that it has at most; None for other parts."""
    if not isinstance(part, Mapping):
        return None
    kind, (media, kept) = part.get("type"), _media_in(part.get("content"))  # those inside are a tool's answer
    if media:
        text = _ENCODER.encode({**part, "content": kept})
        return hash((text, *(key for key, _ in media))), sum(most for _, most in media) + _bytes(text)
    # Some servers take a part without its type.
    kind = kind.lower() if isinstance(kind, str) else " ".join(map(str, part))
    if not _MEDIUM.search(kind):
        return None
    text = _ENCODER.encode(part)
    # What is heard or read may be of any length, and has its bytes along, or nothing is known of it.
    return hash(text), _PER_MEDIUM if "image" in kind else max(_PER_MEDIUM, _bytes(text))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class _Shape:
    """What is known of what a template adds to prompts of one shape.

    A tokeniser makes at most one token of a byte, and of a text at least one. So what the template adds is at most
    what the shortest prompt took in all, and at least what any prompt took beyond its bytes.
    """

    __slots__ = ("least", "most", "shortest")

    def __init__(self) -> None:
        self.shortest: int | None = None  # bytes of the shortest text that was counted
        self.most = self.least = 0

    def saw(self, content: int, tokens: int) -> None:
        if self.shortest is None or content < self.shortest:
            self.shortest, self.most = content, tokens
        elif content == self.shortest:
            self.most = max(self.most, tokens)  # a cache on the server may hide some
        self.least = max(self.least, tokens - content)


class PromptBound:
    """An upper bound of a prompt's tokens: what the server counted for it once, else its bytes and the template.

    What a template adds is learnt from the counts that came, with a margin, and raised at once by one that is above
    its bound. Thread-safe enough: a lost update only leaves a looser bound.
    """

    def __init__(self, size: int = 1024) -> None:
        self._seen: OrderedDict[int, int] = OrderedDict()
        self._shapes: OrderedDict[int, _Shape] = OrderedDict()
        self._size = size
        self._allowance, self._medium = _PER_PROMPT, 0

    def of(self, prompt: Any) -> int:
        """Return tokens at most, of messages with tools and the like, or of what `Written.of` made of them."""
        written = prompt if isinstance(prompt, Written) else Written.of(prompt)
        if (seen := self._seen.get(written.key)) is not None:
            return seen
        unlearnt = written.tokens + self._allowance + self._medium * written.media
        if written.shape is None or (shape := self._shapes.get(written.shape)) is None:
            return unlearnt
        learnt = min(written.content + shape.most + _MARGIN, unlearnt)
        return max(learnt, written.content + shape.least + _MARGIN if shape.least > 0 else 0)

    def saw(self, prompt: Any, tokens: int) -> None:
        """Learn the server's count of this prompt; if counts differ (caches, modes), the largest binds."""
        written = prompt if isinstance(prompt, Written) else Written.of(prompt)
        if self._seen.get(written.key) == tokens:
            return  # as of all samples of one prompt but the first
        beyond = max(0, tokens - written.tokens - self._allowance - self._medium * written.media)
        if written.media:  # its images are larger than expected, which says nothing of other prompts
            self._medium += math.ceil(beyond / written.media)
        else:  # a template that adds more than expected does so for every prompt
            self._allowance += beyond
        if written.shape is not None:
            shape = self._shapes.pop(written.shape, None) or _Shape()
            shape.saw(written.content, tokens)
            self._shapes[written.shape] = shape
        self._seen[written.key] = max(tokens, self._seen.pop(written.key, 0))
        for kept in (self._seen, self._shapes):
            while len(kept) > self._size:
                kept.popitem(last=False)
