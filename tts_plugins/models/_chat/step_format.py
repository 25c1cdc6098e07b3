"""What a reply means for a step: where it ends, what of it is new, and how a step is requested in words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tts_plugins._internal.config import check_count
from tts_plugins.errors import ConfigurationError
from tts_plugins.models._chat.templates import Template, renderer
from tts_plugins.steps import By, split

Way = Literal["auto", "plain", "vllm", "prefix", "completions", "prompt", "whole"]
WAYS: tuple[Way, ...] = ("auto", "plain", "vllm", "prefix", "completions", "prompt", "whole")
DONE = "DONE"
UNSAID = object()
_JOINERS = {"paragraph": "\n\n", "line": "\n", "numbered": "\n", "tokens": ""}
_LABEL = re.compile(r"^\W*(?:step\s*)?\d{1,3}\s*[.:)]\W*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a chat model writes single steps.

    Args:
        by: what ends a step: "paragraph" (a blank line), "line", "numbered" ("Step 2:", "2."), a compiled pattern,
            or "tokens" (every `max_tokens` tokens).
        max_tokens: tokens of one step at most; the model's own limit if left out.
        way: how a solution is continued. "plain": a last turn of the assistant (llama.cpp, Ollama); "vllm": the same
            with `continue_final_message`; "prefix": the same marked `"prefix": true` (DeepSeek's beta address,
            Mistral); "completions": the chat template's text and the steps so far, for `/v1/completions`; "prompt":
            only the next step is requested, in words; "whole": a whole solution is requested, and cut. "auto" tries
            the first four once, with a short question each, and else prompts.
        template: for "completions", from the messages to the prompt that ends where the answer begins: a function, a
            chat template of Jinja (the extra `templates`), or "text" for the messages' bare texts, as a base model
            wants them. The server's own if left out: llama.cpp and vLLM render it.
        joiner: what separates two steps when they are joined; it follows from `by`, and is a blank line for a
            pattern.

    Raises:
        ConfigurationError: a field is out of range.
    """

    by: By | Literal["tokens"] | re.Pattern[str] = "paragraph"
    max_tokens: int | None = None
    way: Way = "auto"
    joiner: str | None = None
    template: Template | None = None

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ConfigurationError(
                f"StepSettings: way={self.way!r} is not known; use one of {', '.join(map(repr, WAYS))}"
            )
        if self.template is not None:
            if self.way not in ("auto", "completions"):
                raise ConfigurationError(
                    f"StepSettings: template is for way='completions', and way={self.way!r}; leave out one of them"
                )
            renderer(self.template)
        if self.max_tokens is not None:
            check_count("StepSettings", "max_tokens", self.max_tokens)
        if self.by == "tokens":
            if self.max_tokens is None:
                raise ConfigurationError("StepSettings: by='tokens' needs max_tokens, the tokens of one step")
            if self.way in ("prompt", "whole"):
                raise ConfigurationError(
                    f"StepSettings: by='tokens' cannot be requested in a prompt; way={self.way!r} needs another `by`"
                )
        else:
            split("", self.by)

    @property
    def separator(self) -> str:
        """What separates two steps of a text."""
        if self.joiner is not None:
            return self.joiner
        return _JOINERS.get(self.by, "\n\n") if isinstance(self.by, str) else "\n\n"

    def stops(self, written: int) -> list[str]:
        """Stop strings that end the step after `written` others; none if only this side can tell."""
        if self.by == "paragraph":
            return ["\n\n"]
        if self.by == "line":
            return ["\n"]
        if self.by == "numbered":
            return [f"\nStep {written + 2}", f"\n{written + 2}.", f"\n{written + 2})"]
        return []

    def first(self, text: str) -> tuple[str, bool]:
        """Return the first step of a text, and whether something followed it."""
        if self.by == "tokens":
            return text, False
        steps = split(text, self.by)
        if not steps:
            return "", False
        begin = text.index(steps[0].text)
        rest = text[begin + len(steps[0].text) :]
        # A separator at the end counts too: a server that ends with it has been stopped by it.
        return steps[0].text, len(steps) > 1 or (self.by in ("paragraph", "line") and self.separator in rest)


@dataclass(frozen=True, kw_only=True)
class Said:
    """One choice, as it matters here: its new text, why it ended, and vLLM's word on which stop string it was."""

    text: str
    finish: str
    stop_reason: Any = UNSAID


def read_step(
    settings: StepSettings, said: Said, stops: Sequence[str], earlier: Sequence[str] | None = None, whole: bool = False
) -> tuple[str, str]:
    """Return the step's text, and "step" if more may follow, "length", "repeated", or how the model ended.

    Args:
        stops: the stop strings that were sent.
        earlier: if the step was requested in words, the steps that the reply may repeat, which are skipped.
        whole: and a whole solution was asked for, so that its end is the solution's.
    """
    if earlier is not None and settings.by != "tokens":
        known = {_bare(step) for step in earlier}
        parts = split(said.text, settings.by)
        fresh = [part.text for part in parts if _bare(part.text) not in known]
        if parts and not fresh:
            return "", "stop" if whole else "repeated"
        text = fresh[0] if fresh else ""
        more = len(fresh) > 1 or (said.finish == "stop" and not whole and bool(fresh))
        if text.strip() == DONE:
            return "", "stop"
    else:
        text, more = settings.first(said.text)
    if more:
        return text, "step"
    if said.finish == "length":
        return text, "step" if settings.by == "tokens" else "length"
    if said.finish == "stop" and stops:
        if said.stop_reason is UNSAID:  # ours or the model's own: an empty continuation will tell
            return text, "step" if text.strip() else "stop"
        return text, "step" if said.stop_reason in stops else "stop"
    return text, said.finish


def step_request(steps: Sequence[str], separator: str, whole: bool) -> str:
    """Return the request in words, for a server that continues nothing."""
    so_far = separator.join(steps) if steps else "(nothing yet)"
    if whole:
        return "Write a complete solution in short steps, with a blank line between two steps." + (
            f" Begin it with exactly these steps, word for word:\n\n{so_far}" if steps else ""
        )
    return (
        "Work on the problem above one step at a time. The steps so far:\n\n"
        f"{so_far}\n\nWrite step {len(steps) + 1} only, in one short paragraph, and none of the steps before it. If "
        'the problem is solved by this step, end the step with the final answer in the form "Answer: …". If the '
        f"steps so far end with it already, reply {DONE}."
    )


def _bare(step: str) -> str:
    """Return a step as it compares: without its number, case and blanks."""
    return " ".join(_LABEL.sub("", step.strip()).casefold().split())
