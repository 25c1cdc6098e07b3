"""The settings of a server. All of them have a form in JSON, so that worker processes can be given them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from tts_plugins._internal.config import check_count, check_price, secret_of
from tts_plugins._internal.http_limits import check_address
from tts_plugins._internal.values import is_number
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError

_WHO = "ServerSettings"
_COUNTS = ("max_tokens", "max_candidates", "max_calls", "max_body", "max_requests", "max_queue", "concurrency", "keep")
_SECONDS = ("timeout", "queue_seconds", "heartbeat", "grace")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of one server.

    Args:
        base_url: the upstream, an OpenAI-compatible server; the embedded model where left out.
        api_key_env: the environment variable that holds the upstream's key.
        models: the upstream's models that callers may name, the first of them where they name none; any where empty.
        price: US dollars per million prompt and completion tokens of the upstream.
        embedded: a GGUF file to serve instead of the embedded model; only without `base_url`.
        threads: CPU threads of the embedded model.
        directory: where `pyproject.toml` or `tts-plugins.toml` with the profiles stands.
        profile: the profile of requests that name none; one sample for each where left out.
        budget: limits on each request of a caller without limits of its own.
        tenants: a TOML file of keys and their limits, see `tts_plugins.server.budgets.tenants`.
        key_env: the environment variable that holds one key for all callers.
        store: where spending is kept: a file (SQLite), or a `redis://` address.
        host, port: where to listen.
        allow_open: listen beyond this machine without any key.
        allowed_hosts: further values of the Host header, such as `api.example.com`, with a port unless it is the usual
            one.
        allowed_origins: web pages that may call, such as `https://app.example.com`.
        max_tokens: of one candidate, where a request gives no limit and a budget of tokens or money needs one.
        max_candidates: candidates that a caller may ask for.
        max_calls: generations that a caller's own strategy may come to.
        max_body: bytes of a request.
        max_requests: requests worked on at once; `max_queue` more wait for up to `queue_seconds`, which is also how
            long the next part of a body may be in coming.
        timeout: seconds for one request.
        concurrency: requests to the upstream in flight at once.
        heartbeat: seconds between a stream's heartbeats.
        grace: seconds that requests have to end in when the server is stopped.
        view: keep the latest solves for the viewer, prompts and answers included.
        keep: how many.

    Raises:
        ConfigurationError: a field is out of range, or the server would be open to everybody.
    """

    base_url: str | None = None
    api_key_env: str | None = None
    models: tuple[str, ...] = ()
    price: tuple[float, float] | None = None
    embedded: str | None = None
    threads: int | None = None
    directory: str = "."
    profile: str | None = None
    budget: Mapping[str, Any] | None = None
    tenants: str | None = None
    key_env: str | None = None
    store: str | None = None
    host: str = "127.0.0.1"
    port: int = 8400
    allow_open: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_tokens: int = 4096
    max_candidates: int = 64
    max_calls: int = 4096
    max_body: int = 8_000_000
    max_requests: int = 1024
    max_queue: int = 4096
    queue_seconds: float = 30.0
    timeout: float = 600.0
    concurrency: int = 512
    heartbeat: float = 5.0
    grace: float = 30.0
    view: bool = True
    keep: int = 200

    def __post_init__(self) -> None:
        for name in ("models", "allowed_hosts", "allowed_origins"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in _COUNTS:
            check_count(_WHO, name, getattr(self, name), least=0 if name == "max_queue" else 1)
        for name in _SECONDS:
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise ConfigurationError(f"{_WHO}: {name}={value!r} must be a number of seconds above 0")
        if self.price is not None:
            check_price(_WHO, self.price)
            object.__setattr__(self, "price", tuple(self.price))
        if not isinstance(self.port, int) or not 0 <= self.port <= 65535:
            raise ConfigurationError(f"{_WHO}: port={self.port!r} must be from 0 to 65535")
        if self.base_url is not None:
            check_address(_WHO, self.base_url)
        self.request_budget  # noqa: B018 - it is checked here
        if not (self.loopback or self.keyed or self.allow_open):
            raise ConfigurationError(
                f"{_WHO}: host={self.host!r} is open to other machines, and no key is required; set tenants= or "
                "key_env=, or allow_open=True if everybody who reaches it may spend"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def keyed(self) -> bool:
        """Whether callers need a key."""
        return self.tenants is not None or self.key_env is not None

    @property
    def request_budget(self) -> Budget | None:
        """The limits on each request of a caller that has none of its own."""
        return None if not self.budget else Budget(**self.budget)

    @property
    def api_key(self) -> str | None:
        """The upstream's key.

        Raises:
            ConfigurationError: the variable that should hold it is not set.
        """
        return None if self.api_key_env is None else secret_of("api_key_env=", self.api_key_env)

    def to_json(self) -> str:
        """Return the settings as JSON, without any key: keys are named by their environment variables."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})
