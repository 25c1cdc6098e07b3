"""The checks of `doctor`: each reports a state, and what to do if something is wrong."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tts_plugins._internal.files import expanded
from tts_plugins._trace.wording import plural
from tts_plugins._version import __version__
from tts_plugins.cli._display.console import Download
from tts_plugins.errors import ConfigurationError, RequestRefused, SandboxUnavailable, TTSError
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.models.listing import list_models
from tts_plugins.models.llama_cpp import NAME, cache_folder, default_threads, usable_cores
from tts_plugins.options import PROFILE_VARIABLE
from tts_plugins.profiles import load_profile, profile_sources
from tts_plugins.types import Problem, Reply
from tts_plugins.verifiers import find_sandbox

Status = Literal["ok", "absent", "skipped", "failed"]

EXTRAS: Mapping[str, tuple[str, str]] = {
    "cli": ("rich", "this command line"),
    "fast": ("aiohttp", "many solves at once"),
    "server": ("starlette", "tts-plugins serve, and the viewer"),
    "redis": ("redis", "budgets of several servers"),
    "ray": ("ray", "more machines than one"),
    "providers": ("any-llm-sdk", "Anthropic, Gemini, Bedrock by their own interfaces"),
    "local": ("xllamacpp", "models on this machine"),
    "schema": ("jsonschema", "JSONSchemaVerifier, demo"),
    "prices": ("genai-prices", "published prices"),
    "templates": ("jinja2", "chat templates of yours for completions endpoints"),
    "math": ("math-verify", "equal formulas as one answer"),
    "bench": ("resvg-py", "pictures of benchmarks; data sets and puzzles"),
    "otel": ("opentelemetry-api", "OpenTelemetry spans"),
    "langchain": ("langchain", "LangChain and LangGraph: tts_plugins_langchain"),
    "dspy": ("dspy", "DSPy: tts_plugins_dspy"),
    "transformers": ("transformers", "ProcessVerifierTransformers"),
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check. `data` holds its figures for programs."""

    name: str
    status: Status
    said: str
    data: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON."""
        return {"name": self.name, "status": self.status, "said": self.said, **(self.data or {})}


def surroundings() -> list[Check]:
    """Check Python, this package, the cores, the sandbox, and the extras."""
    found = [
        Check(name="Python", status="ok", said=f"{platform.python_version()} at {sys.executable}"),
        Check(name="tts-plugins", status="ok", said=__version__, data={"version": __version__}),
    ]
    cores, threads = usable_cores(), default_threads()
    less = "" if threads == cores else "; the others are busy now"
    said = f"{os.cpu_count()} logical, {cores} usable; {threads} for a local model{less}"
    found.append(Check(name="CPU cores", status="ok", said=said, data={"cores": cores, "threads": threads}))
    return [
        *found,
        _sandbox(),
        *_profiles(),
        *(_extra(extra, package, use) for extra, (package, use) in EXTRAS.items()),
    ]


def _profiles() -> list[Check]:
    """Load the profiles that are found from this folder."""
    found = list[Check]()
    try:
        sources = profile_sources()
    except ConfigurationError as error:
        return [Check(name="profiles", status="failed", said=str(error))]
    if (default := os.environ.get(PROFILE_VARIABLE)) and default not in sources:
        said = f"{PROFILE_VARIABLE} names it, and there is no such profile"
        found.append(Check(name=f"profile {default}", status="failed", said=said))
    for name, files in sorted(sources.items()):
        try:
            load_profile(name)
        except ConfigurationError as error:
            found.append(Check(name=f"profile {name}", status="failed", said=str(error)))
        else:
            more = f"; the default, by {PROFILE_VARIABLE}" if name == default else ""
            found.append(Check(name=f"profile {name}", status="ok", said=", ".join(files) + more))
    return found


def _sandbox() -> Check:
    """Find the sandbox for programs of a model by running it."""
    try:
        found = find_sandbox()
    except SandboxUnavailable as error:
        return Check(name="sandbox", status="absent", said=str(error), data={"kind": None})
    better = "".join(f"; {kind} does not work here: {why}" for kind, why in found.lacking.items())
    return Check(
        name="sandbox", status="ok", said=f"{found}, for CodeTests{better}",
        data={"kind": found.kind, "landlock": found.landlock, "lacking": dict(found.lacking)},
    )  # fmt: skip


def _extra(extra: str, package: str, use: str) -> Check:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        said = f"for {use}: pip install 'tts-plugins[{extra}]'"
        return Check(name=f"extra {extra}", status="absent", said=said, data={"package": package, "version": None})
    said = f"{package} {version}, for {use}"
    return Check(name=f"extra {extra}", status="ok", said=said, data={"package": package, "version": version})


def weights() -> Check:
    """Check whether the embedded model's file is there."""
    try:
        path = expanded(cache_folder()) / NAME
    except TTSError as error:
        return Check(name="weights", status="failed", said=str(error))
    if given := os.environ.get("TTS_PLUGINS_WEIGHTS"):
        return Check(name="weights", status="ok", said=f"from $TTS_PLUGINS_WEIGHTS: {given}", data={"path": given})
    if path.exists():
        size = path.stat().st_size
        return Check(name="weights", status="ok", said=f"{path} ({size / 1e6:.0f} MB)", data={"path": str(path)})
    return Check(name="weights", status="absent", said=f"fetched at first use (93 MB), into {path.parent}")


def local_model(download: Download) -> Check:
    """Start the embedded model, and time a short answer."""
    name = "local model"
    model = LocalModel(temperature=0.0, max_tokens=32, context=512, slots=1, progress=download)
    began = time.monotonic()
    try:
        try:
            model.start()
        finally:
            download.stop()
        ready = time.monotonic()
        asyncio.run(_ask(model, "Count from one to ten.", 1))  # loads what the first request loads
        started = time.monotonic()
        reply = asyncio.run(_ask(model, "List ten animals.", 1))
        took = time.monotonic() - started
        tokens = 0 if reply.usage is None else reply.usage.completion_tokens
        speed, used = tokens / took, model.threads
    except TTSError as error:
        return Check(name=name, status="failed", said=str(error))
    finally:
        model.close()
    said = f"{model.name} runs: started in {ready - began:.1f} s, {speed:.0f} tokens/s on {plural(used, 'thread')}"
    return Check(name=name, status="ok", said=said, data={"tokens_per_second": round(speed, 1), "threads": used})


async def _ask(model: OpenAICompatibleModel, text: str, n: int) -> Reply:
    try:
        return await model.generate(Problem(text), list(range(1, n + 1)))
    finally:
        await OpenAICompatibleModel.aclose(model)


async def server(base_url: str, key: str | None, model: str | None) -> list[Check]:
    """Check what a server has and honours; by default with the first model of its list."""
    try:
        names = await list_models(base_url, key)
    except TTSError as error:
        return [Check(name="server", status="failed", said=str(error))]
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    found = [
        Check(name="server", status="ok", said=f"{base_url}: {listed or 'lists no model'}", data={"models": names})
    ]
    chosen = model or (names[0] if names else None)
    if chosen is None:
        return [*found, Check(name="its model", status="skipped", said="name one with --model")]
    if model is not None and names and model not in names:
        found.append(Check(name="its list", status="absent", said=f"{model} is not in it; it is asked all the same"))
    return found + await _honours(base_url, key, chosen)


async def _honours(base_url: str, key: str | None, name: str) -> list[Check]:
    def model(**settings: Any) -> OpenAICompatibleModel:
        return OpenAICompatibleModel(
            name, base_url=base_url, api_key=key, temperature=0.8, max_tokens=16, timeout=60, **settings
        )

    started = time.monotonic()
    try:
        # Long enough to be cut: twice the limit cannot be the count of one choice.
        reply = await _ask(model(), "Count from one to thirty, in words.", 2)
    except TTSError as error:
        return [Check(name=name, status="failed", said=str(error))]
    took = time.monotonic() - started
    n, usage = len(reply.generations) == 2, reply.usage is not None and reply.usage.exact
    try:
        logprobs = (await _ask(model(logprobs=True), "Say a word.", 1)).generations[0].logprobs is not None
    except RequestRefused:
        logprobs = False
    except TTSError as error:
        return [Check(name=name, status="failed", said=str(error))]
    return [
        Check(name=name, status="ok", said=f"answers, in {took:.2f} s", data={"seconds": round(took, 3)}),
        _feature("n", n, "honoured: one request brings many candidates", "ignored: a request for each candidate"),
        _feature("usage", usage, "reported", "missing, wrong, or of one choice only: charged at an upper bound"),
        _feature("logprobs", logprobs, "given when asked for", "not given"),
    ]


def _feature(name: str, there: bool, yes: str, no: str) -> Check:
    return Check(
        name=f"  {name}", status="ok" if there else "absent", said=yes if there else no, data={"honoured": there}
    )
