"""From chat messages to the prompt of a completions endpoint: by the server's own template, or by the user's."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConfigurationError, MissingExtraError, RequestRefused
from tts_plugins.models._openai.error_mapping import translate

Template = Callable[[Sequence[Mapping[str, Any]]], str] | str
Prompt = str | list[int]

PLAIN = "text"
_KEPT = 1024  # prompts, and texts as token ids
_SECONDS = 30.0  # nothing is generated for it


class NoTemplate(ConfigurationError):
    """The server does not expose its template in any known way."""


class Templates:
    """Renders messages, at most once for each of them.

    llama.cpp renders at `/apply-template`; vLLM's `/tokenize` renders `messages` too, and answers with the tokens'
    ids, which its completions take as a prompt.

    Args:
        template: the user's; None for the server's.
        headers: that all requests to the server carry.

    Raises:
        ConfigurationError: it is not a template.
        MissingExtraError: it is one of Jinja, which is not installed.
    """

    def __init__(self, template: Template | None, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self._render = None if template is None else renderer(template)
        self._headers = headers
        self._known: OrderedDict[str, Prompt] = OrderedDict()

    async def prompt(
        self, client: Any, model: str, messages: Sequence[Mapping[str, Any]], begun: str, fields: Mapping[str, Any]
    ) -> Prompt:
        """Return the messages and the start of an answer, `begun` included, as text or as token ids.

        Args:
            fields: what else a template may look at, such as tools.

        Raises:
            NoTemplate: the server has none to show.
            ModelError: it did not answer as it should.
        """
        if (render := self._render) is not None:
            # Code of the user, which may take its time, and may change what it is given.
            given = [dict(m) for m in messages]
            text = await self._once(json.dumps(given, default=str), lambda: in_thread(render, given))
            assert isinstance(text, str)
            return text + begun
        root = str(client.base_url).rstrip("/").removesuffix("/v1")
        asked = {"model": model, "messages": list(messages), **fields}
        head = await self._once(json.dumps(asked, default=str), lambda: self._rendered(client, root, asked))
        if isinstance(head, str):
            return head + begun
        if not begun:
            return head
        tail = await self._once(json.dumps([model, begun]), lambda: self._tail(client, root, model, begun))
        assert isinstance(tail, list)
        return [*head, *tail]

    async def _once(self, key: str, ask: Callable[[], Awaitable[Prompt]]) -> Prompt:
        if key in self._known:
            return self._known[key]
        found = self._known[key] = await ask()
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return found

    async def _tail(self, client: Any, root: str, model: str, begun: str) -> Prompt:
        ids = await self._ids(client, root, {"model": model, "prompt": begun, "add_special_tokens": False})
        if ids is None:
            raise RequestRefused(f"{model}: {root}/tokenize gave no tokens for a text of {len(begun)} characters")
        return ids

    async def _rendered(self, client: Any, root: str, asked: Mapping[str, Any]) -> Prompt:
        said = await self._posted(client, f"{root}/apply-template", asked)
        prompt = said.get("prompt") if isinstance(said, dict) else None
        if isinstance(prompt, str) and prompt:
            return prompt
        body = {**asked, "add_generation_prompt": True, "add_special_tokens": False}
        if ids := await self._ids(client, root, body):
            return ids
        raise NoTemplate(
            f"{asked['model']}: way='completions' needs the chat template, and the server renders none at "
            "/apply-template (llama.cpp) or /tokenize (vLLM); give StepSettings(template=…), or another way"
        )

    async def _ids(self, client: Any, root: str, body: Mapping[str, Any]) -> list[int] | None:
        said = await self._posted(client, f"{root}/tokenize", body)
        tokens = said.get("tokens") if isinstance(said, dict) else None
        whole = isinstance(tokens, list) and all(type(token) is int for token in tokens)
        return tokens if whole and tokens else None

    async def _posted(self, client: Any, address: str, body: Mapping[str, Any]) -> Any:
        """Return the answer; None if the server has no such path, or does not take such a body."""
        post = getattr(client, "post", None)
        if post is None:
            return None
        try:
            async with asyncio.timeout(_SECONDS):
                return await post(address, cast_to=object, body=dict(body), options={"headers": dict(self._headers)})
        except Exception as error:
            if getattr(error, "status_code", None) in (400, 404, 405, 422, 501):
                return None
            raise translate(error, address) from error


def renderer(template: Template) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """Return a template as a function of the messages.

    Raises:
        ConfigurationError: it is neither a function, nor a template of Jinja, nor "text".
        MissingExtraError: Jinja is not installed.
    """
    if callable(template):
        render: Callable[[Sequence[Mapping[str, Any]]], object] = template
    elif template == PLAIN:
        render = _plain
    elif isinstance(template, str) and ("{{" in template or "{%" in template):
        render = _jinja(template)
    else:
        raise ConfigurationError(
            f"StepSettings: template={template!r} is not a template; give a function of the messages, a template of "
            "Jinja, or 'text' for the messages' bare texts"
        )

    def checked(messages: Sequence[Mapping[str, Any]]) -> str:
        try:
            text = render(messages)
        except BaseException as error:  # on a thread of its own, where it has nobody to end
            raise ConfigurationError(f"StepSettings: the template failed, {type(error).__name__}: {error}") from error
        if not isinstance(text, str) or not text:
            raise ConfigurationError(f"StepSettings: the template gave {text!r}; it has to give the prompt's text")
        return text

    return checked


def _plain(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(str(m.get("content") or "") for m in messages)


def _jinja(source: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    try:
        from jinja2 import TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingExtraError("a chat template needs jinja2: pip install 'tts-plugins[templates]'") from error

    def refuse(message: str) -> None:
        raise ValueError(message)

    # As the templates that models are published with expect it; the server adds the mark of a text's begin by itself.
    world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    world.globals.update(raise_exception=refuse, bos_token="", eos_token="")
    try:
        made = world.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigurationError(f"StepSettings: template, line {error.lineno}: {error.message}") from error
    return lambda messages: made.render(messages=[dict(m) for m in messages], add_generation_prompt=True)
