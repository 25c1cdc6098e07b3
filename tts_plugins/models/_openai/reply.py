"""From an answer, as JSON or as the client's object, to the generations and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tts_plugins._calls.prompt_bound import PromptBound, Written
from tts_plugins._internal.error_bodies import error_in, json_of
from tts_plugins._internal.http_errors import cut, reply_error
from tts_plugins._internal.secrets import without_secrets
from tts_plugins._internal.token_usage import (
    Price,
    Report,
    Trust,
    completion_count,
    kept_limit,
    measure,
    most_of_one,
    size_of,
)
from tts_plugins._internal.values import field, fields_of, listed
from tts_plugins.errors import MalformedResponse
from tts_plugins.models._openai.choices import error_of, finish_of, generation, shown, withheld
from tts_plugins.types import Generation, Reply, Usage

Shape = Callable[[Any, Generation], Generation]


@dataclass(slots=True, kw_only=True)
class Asked:
    """What an answer is read against.

    Attributes:
        prompt: the fields that make it up, as they were sent.
        shape: from a choice and what it says to its generation.
    """

    prompt: Any
    choices: int
    max_tokens: int | None
    requests: int
    shape: Shape | None = None


@dataclass(slots=True, kw_only=True)
class ReplyReader:
    """Reads the answers of one model.

    Attributes:
        who: for errors.
        new: from a prompt and a choice's text to what is new of it: servers repeat what they continue.
        secrets: values that no error may show.
    """

    who: Callable[[], str]
    new: Callable[[Any, str], str]
    prompts: PromptBound
    trust: Trust
    price: Price | None
    secrets: Iterable[str] = ()

    def doubt(self, asked: Asked, response: Any) -> tuple[int, list[str]] | None:
        """Return the count and the texts if the usage may cover the first choice only and nothing has shown it yet."""
        if self.trust.proven or self.trust.asked or len(choices := listed(field(response, "choices"))) < 2:
            return None
        usage, trust = field(response, "usage"), self.trust
        if field(usage, "every_choice"):
            return None
        texts, ended = [self.new(asked.prompt, shown(c)) for c in choices], [finish_of(c) == "length" for c in choices]
        report, sizes = Report.of(usage), [size_of(text) for text in texts]
        claimed = completion_count(report, sizes, ended, asked.max_tokens)
        kept = kept_limit(report, sizes, asked.max_tokens, trust)
        known = claimed is None or claimed > most_of_one(claimed, report, sizes, kept)
        return None if claimed is None or known else (claimed, texts)

    def read(self, asked: Asked, response: Any) -> Reply:
        """Return the generations of an answer, with the usage of the whole request.

        Raises:
            ModelError: the answer is an error, or none of its choices is an answer.
        """
        choices, unfinished = listed(field(response, "choices")), listed(field(response, "unfinished"))
        if not choices and not unfinished:
            self._refuse(response)
        broken = error_in(fields_of(response))
        made = [
            (c, None if broken and not field(c, "finish_reason") else generation(c, empty=asked.shape is not None))
            for c in choices
        ]
        hidden = any([g is None or (not g.text and withheld(c)) for c, g in made])
        usage = self._usage(asked, choices, unfinished, field(response, "usage"), hidden)
        generations = tuple([g if asked.shape is None else asked.shape(c, g) for c, g in made if g is not None])
        if not generations:
            self._refuse_choices(choices, broken)
        if len(choices) == 1 and not unfinished and usage.exact:
            generations = (generations[0].replace(tokens=usage.completion_tokens),)
        return Reply(generations=generations[: asked.choices], usage=usage)

    def _usage(
        self, asked: Asked, choices: Sequence[Any], unfinished: Sequence[Any], reported: Any, hidden: bool
    ) -> Usage:
        written = Written.of(asked.prompt)
        usage = measure(
            reported,
            [self.new(asked.prompt, shown(c)) for c in (*choices, *unfinished)],
            [*[finish_of(c) == "length" for c in choices], *[True] * len(unfinished)],
            prompt_bound=self.prompts.of(written),
            max_tokens=asked.max_tokens,
            hidden=hidden,
            price=self.price,
            trust=self.trust,
            calls=asked.choices,
            requests=asked.requests,
        )
        if usage.exact:
            self.prompts.saw(written, usage.prompt_tokens)
        return usage

    def _refuse(self, response: Any) -> None:
        body = fields_of(response) or response
        if (error := error_in(body)) is not None:  # some gateways report errors with a 200
            raise reply_error(
                200, f"{self.who()}: the answer is an error", error, secrets=self.secrets, now=time.time()
            )
        has = "choices" in body if isinstance(body, dict) else hasattr(response, "choices")
        kind = "no choices" if has else f"a {type(response).__name__}, no completion"
        shown_ = cut(without_secrets(response if isinstance(response, str) else json_of(body), self.secrets))[:120]
        raise MalformedResponse(f"{self.who()}: the answer has {kind}: {shown_!r}")

    def _refuse_choices(self, choices: Sequence[Any], broken: object) -> None:
        errors = [error for error in (broken, *map(error_of, choices)) if error is not None]
        if errors:
            who = f"{self.who()}: the answer is an error"
            raise reply_error(200, who, errors[0], secrets=self.secrets, now=time.time())
        if not choices:
            raise MalformedResponse(f"{self.who()}: the choices of the stream cannot be distinguished, or did not end")
        raise MalformedResponse(f"{self.who()}: the answer has neither text nor a tool call")
