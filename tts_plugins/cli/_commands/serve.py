"""`tts-plugins serve`: test-time scaling for any client, by a base URL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

from tts_plugins._internal.http_errors import shown_address
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._arguments.groups import BudgetGroup, grouped
from tts_plugins.cli._display.console import Debug, Download, errors, say, stderr
from tts_plugins.server import ServerSettings

UPSTREAM, CALLERS, LISTEN = map(options.panel, ("Upstream", "Callers and budgets", "Address"))
Models = Annotated[
    list[str] | None,
    UPSTREAM(
        "A model that callers may name; the first one is the default. Given more than once, each of them; any "
        "model of the upstream if left out. Without --base-url, the path of a GGUF file.",
        "--model",
        metavar="NAME",
    ),
]
BaseUrl = Annotated[
    str | None,
    UPSTREAM("The OpenAI-compatible server that answers; the small embedded model if left out.", metavar="URL"),
]
Profile = Annotated[
    str | None,
    UPSTREAM(
        "The profile of requests that name none; one sample for each if left out. Profiles are in "
        "pyproject.toml or tts-plugins.toml.",
        metavar="NAME",
    ),
]
Host = Annotated[str, LISTEN("Where to listen.")]
Port = Annotated[int, LISTEN("Where to listen.", min=0, max=65535)]
Workers = Annotated[int, LISTEN("Processes; they share one account.", min=1)]
AllowedHost = Annotated[
    list[str] | None,
    LISTEN(
        "A further name by which it is reached, with its port, such as api.example.com:8400; * for any.", metavar="HOST"
    ),
]
AllowedOrigin = Annotated[list[str] | None, LISTEN("A web page that may call, such as https://app.example.com.")]
AllowOpen = Annotated[bool, LISTEN("Listen beyond this machine without any key.", "--allow-open")]
Tenants = Annotated[Path | None, CALLERS("A TOML file of keys and their budgets.", metavar="FILE")]
KeyEnv = Annotated[str | None, CALLERS("The environment variable that holds one key for all callers.", metavar="NAME")]
Store = Annotated[
    str | None,
    CALLERS("Where spending is kept: a file, or redis://…; tts-plugins-usage.sqlite if left out.", metavar="WHERE"),
]
MaxCandidates = Annotated[int, CALLERS("Candidates that a caller may ask for.", min=1)]
Timeout = Annotated[float, CALLERS("Seconds for one request.")]
View = Annotated[
    bool | None,
    LISTEN(
        "Keep the latest solves, prompts included, for the page at /view; by default on this machine only.",
        "--view/--no-view",
    ),
]


@grouped
def serve(
    model: Models = None,
    base_url: BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    price: options.Price = None,
    threads: options.Threads = None,
    profile: Profile = None,
    max_tokens: Annotated[
        int, UPSTREAM("Of one candidate, if a budget needs a limit and a request gives none.", min=1)
    ] = 4096,
    tenants: Tenants = None,
    key_env: KeyEnv = None,
    store: Store = None,
    limits: BudgetGroup = BudgetGroup(),
    max_candidates: MaxCandidates = 64,
    timeout: Timeout = 600.0,
    host: Host = "127.0.0.1",
    port: Port = 8400,
    workers: Workers = 1,
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    allow_open: AllowOpen = False,
    view: View = None,
    debug: Debug = False,
) -> None:
    """Serve test-time scaling to any OpenAI client: change its base URL, nothing else.

    Without options it serves the small embedded model. The budget is that of each request.

    [dim]tts-plugins serve[/]

    [dim]tts-plugins serve --base-url http://127.0.0.1:8000/v1 --profile careful --key-env TTS_KEY --host 0.0.0.0[/]
    """  # fmt: skip
    with errors(debug):
        local = base_url is None
        budget = limits.budget()
        settings: dict[str, Any] = {
            "base_url": base_url, "api_key_env": api_key_env, "models": () if local else tuple(model or ()),
            "embedded": model[0] if local and model else None, "threads": (threads or 1) if local else None,
            "price": None if price is None else _build.price_of(price), "profile": profile, "max_tokens": max_tokens,
            "tenants": None if tenants is None else str(tenants), "key_env": key_env, "store": store,
            "budget": None if budget is None else budget.to_dict(), "max_candidates": max_candidates,
            "timeout": timeout, "host": host, "port": port, "allowed_hosts": tuple(allowed_host or ()),
            "allowed_origins": tuple(allowed_origin or ()), "allow_open": allow_open,
        }  # fmt: skip
        made = ServerSettings(**settings, view=True if view is None else view)
        if view is None and (not made.loopback or workers > 1):  # each process would show its own solves only
            made = ServerSettings(**settings, view=False)
        _serve(made, workers)


def _serve(settings: ServerSettings, workers: int) -> None:
    from tts_plugins.server import bind, serve

    sock = bind(settings)
    port = sock.getsockname()[1]
    if settings.port == 0:
        settings = ServerSettings.from_json(settings.to_json().replace('"port": 0', f'"port": {port}'))
    download = Download(stderr())
    try:
        serve(settings, workers=workers, sock=sock, progress=download, starting=lambda: greet(settings))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    finally:
        download.stop()
        sock.close()


def greet(settings: ServerSettings) -> None:
    """Print the server's address, and a command to try."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    model = settings.models[0] if settings.models else "SmolLM2-135M-Instruct" if settings.base_url is None else "MODEL"
    if settings.embedded:
        model = Path(settings.embedded).stem
    key = f' -H "Authorization: Bearer ${settings.key_env or "KEY"}"' if settings.keyed else ""
    body = (
        f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is 17 + 25?"}}], '
        '"max_tokens": 64, "tts": {"n": 4}}'
    )
    upstream = "the embedded model" if settings.base_url is None else shown_address(settings.base_url)
    say(f"tts-plugins serves {upstream} at {address}/v1")
    if settings.view:
        say(f"solves can be watched at {address}/view/")
    say(f"try:\n  curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'")
    sys.stderr.flush()
