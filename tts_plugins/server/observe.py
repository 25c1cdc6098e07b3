"""What is observed of requests: counts for Prometheus, without keys and prompts, and the viewer's solves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import prometheus_client as prometheus
from prometheus_client import multiprocess

from tts_plugins.ledger import Ledger
from tts_plugins.server.budgets.tenants import Tenant
from tts_plugins.server.errors import api_error
from tts_plugins.server.guard import TENANT
from tts_plugins.server.requests.chat import Listener
from tts_plugins.server.requests.profiles import Search
from tts_plugins.server.settings import ServerSettings
from tts_plugins.types import Result, Usage
from tts_plugins.viewer import Solves, Viewer

_PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/models", "/health",
          "/metrics")  # fmt: skip
# Of an event: what may quote the address of a server, such as a judge's.
_QUOTING = ("error", "message", "model")
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Observation:
    """Watches requests. Labels have few values: a caller can make no new ones.

    Args:
        hide: takes out of a text what no caller may see.
    """

    def __init__(self, settings: ServerSettings, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self._registry = prometheus.CollectorRegistry()
        labels: dict[str, Any] = {"registry": self._registry, "namespace": "tts_plugins"}
        self._answers = prometheus.Counter("answers", "Answers by path and status.", ("path", "status"), **labels)
        self._ended = prometheus.Counter(
            "solves", "Solves by profile and how they ended.", ("profile", "stopped"), **labels
        )
        self._seconds = prometheus.Histogram(
            "solve_seconds", "Seconds of a solve.", ("profile",), buckets=_SECONDS, **labels
        )
        self._tokens = prometheus.Counter("tokens", "Tokens by kind.", ("profile", "kind"), **labels)
        self._calls = prometheus.Counter("calls", "Generations asked of models.", ("profile",), **labels)
        self._usd = prometheus.Counter("usd", "US dollars, where prices are known.", ("profile",), **labels)
        self._errors = prometheus.Counter("errors", "Solves without an answer, by code.", ("code",), **labels)
        self._running = prometheus.Gauge("running_solves", "Solves that run.", multiprocess_mode="livesum", **labels)
        self._begun: dict[str, float] = {}
        self.solves = Solves(settings.keep) if settings.view else None
        self.viewer = None if self.solves is None else Viewer(self.solves, _sees)

    def begin(self, name: str, tenant: Tenant, search: Search, ledger: Ledger) -> Listener | None:
        """Count a solve that begins, and return what hears its events for the viewer."""
        self._running.inc()
        self._begun[name] = time.monotonic()
        if self.solves is None:
            return None
        hear = self.solves.begin(name, owner=tenant.name, profile=search.profile or "", account=ledger)

        def heard(event: Mapping[str, Any]) -> None:
            shown = {key: self._hide(event[key]) for key in _QUOTING if isinstance(event.get(key), str)}
            hear({**event, **shown} if shown else event)

        return heard

    def end(self, name: str, search: Search, usage: Usage, result: Result | None, error: BaseException | None) -> None:
        """Count a solve that has ended."""
        profile = search.profile or ""
        self._running.dec()
        self._seconds.labels(profile).observe(time.monotonic() - self._begun.pop(name, time.monotonic()))
        self._ended.labels(profile, "failed" if result is None else result.stopped).inc()
        self.counted(profile, usage)
        if result is None and isinstance(error, Exception):
            self._errors.labels(api_error(error).code or "error").inc()
        if self.solves is not None:
            self.solves.end(name)

    def counted(self, profile: str, usage: Usage) -> None:
        """Count what a request has spent."""
        self._tokens.labels(profile, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(profile, "completion").inc(usage.completion_tokens)
        self._calls.labels(profile).inc(usage.calls)
        self._usd.labels(profile).inc(usage.usd or 0.0)

    def answered(self, path: str, status: int) -> None:
        """Count an answer."""
        self._answers.labels(path if path in _PATHS else "other", str(status)).inc()

    def metrics(self) -> tuple[bytes, str]:
        """Return all counts in Prometheus' form, those of all worker processes together."""
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return prometheus.generate_latest(registry), prometheus.CONTENT_TYPE_LATEST

    def close(self) -> None:
        """End the viewers' streams."""
        if self.solves is not None:
            self.solves.close()


def _sees(scope: Mapping[str, Any]) -> str | None:
    """Return whose solves the caller may see: its own name, or None, which is everybody, for an administrator."""
    tenant: Tenant = scope[TENANT]
    return None if tenant.admin else tenant.name
