"""Who may call, and how much they may spend: keys, and limits on each request, day and month.

[tenants.alice]
key_env = "ALICE_KEY"               # the variable that holds the key; or key_sha256 = "…"
request = { tokens = 20000, seconds = 60 }
day = { usd = 1.0 }
month = { usd = 10.0 }
admin = true                        # sees the metrics, and everybody's solves in the viewer
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._internal.config import secret_of
from tts_plugins._internal.files import expanded, toml_table
from tts_plugins.budget import Budget
from tts_plugins.errors import ConfigurationError
from tts_plugins.server.settings import ServerSettings

_FIELDS = ("key_env", "key_sha256", "request", "day", "month", "admin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHORTEST_KEY = 16


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A caller. `digest` is the SHA-256 of the key: the key itself is not kept."""

    name: str
    digest: bytes = field(default=b"", repr=False)
    request: Budget | None = None
    day: Budget | None = None
    month: Budget | None = None
    admin: bool = False

    @property
    def periods(self) -> dict[str, Budget]:
        """The limits that hold over many requests."""
        return {name: limit for name, limit in (("day", self.day), ("month", self.month)) if limit is not None}


class Tenants:
    """The callers that a server knows.

    Args:
        tenants: none where everybody may call, as on a loopback address.
        everybody: who calls without a key.
    """

    def __init__(self, tenants: Sequence[Tenant], everybody: Tenant | None) -> None:
        self._by_digest = {tenant.digest: tenant for tenant in tenants}
        if len(self._by_digest) < len(tenants):
            raise ConfigurationError("tenants: two of them have the same key; give each a key of its own")
        self._everybody = everybody

    @classmethod
    def of(cls, settings: ServerSettings) -> Tenants:
        """Return the callers that the settings name.

        Raises:
            ConfigurationError: naming the file, the tenant and the field.
        """
        budget = settings.request_budget
        found: list[Tenant] = []
        if settings.key_env is not None:
            key = "" if settings.key_env is None else secret_of("key_env=", settings.key_env)
            found.append(Tenant(name="default", digest=_digest(key, "key_env"), request=budget, admin=True))
        if settings.tenants is not None:
            found += read_tenants(settings.tenants, budget)
        everybody = None if found else Tenant(name="local", request=budget, admin=True)
        return cls(found, everybody)

    def find(self, authorization: str) -> Tenant | None:
        """Return the caller that an Authorization header names, or None."""
        if self._everybody is not None:
            return self._everybody
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(key.strip(" \t").encode("latin-1")).digest()  # the bytes as they were sent
        # Compared with each in constant time: how long it takes says nothing about any key.
        matches = [tenant for known, tenant in self._by_digest.items() if hmac.compare_digest(known, digest)]
        return matches[0] if matches else None

    @property
    def limited(self) -> bool:
        """Whether anybody's spending is kept over many requests."""
        return any(tenant.periods for tenant in self._by_digest.values())


def read_tenants(path: str, default: Budget | None = None) -> list[Tenant]:
    """Return the tenants of a file; `default` limits the requests of those without limits of their own.

    Raises:
        ConfigurationError: naming the file, the tenant and the field.
    """
    tables = toml_table(expanded(path)).get("tenants", {})
    if not isinstance(tables, dict) or not tables:
        raise ConfigurationError(f"{path}: it has no tenants; write a table such as [tenants.alice]")
    made = []
    for name, table in tables.items():
        try:
            made.append(_tenant(name, table, default))
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: tenants.{name}: {error}") from error
    return made


def _tenant(name: str, table: Any, default: Budget | None) -> Tenant:
    if not _NAME.fullmatch(name):
        raise ConfigurationError("a name has letters, digits, dots, hyphens and underscores, at most 64 of them")
    if not isinstance(table, dict):
        raise ConfigurationError(f"{table!r} must be a table")
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise ConfigurationError(f"unknown field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    if ("key_env" in table) == ("key_sha256" in table):
        raise ConfigurationError("give one of key_env and key_sha256")
    if "key_env" in table:
        digest = _digest(secret_of("key_env=", table["key_env"]), "key_env")
    else:
        digest = _hex(table["key_sha256"])
    if not isinstance(table.get("admin", False), bool):
        raise ConfigurationError(f"admin={table['admin']!r} must be true or false")
    limits = {key: _budget(key, table[key]) for key in ("request", "day", "month") if key in table}
    for key in ("day", "month"):
        if key in limits and limits[key].seconds is not None:
            raise ConfigurationError(f"{key}: seconds holds for one request; set it in `request`")
    return Tenant(name=name, digest=digest, admin=table.get("admin", False), **{"request": default, **limits})


def _digest(key: str, field: str) -> bytes:
    key = key.strip()
    if len(key) < SHORTEST_KEY:
        raise ConfigurationError(
            f"{field}: the key has {len(key)} characters, too few to be safe; use {SHORTEST_KEY} or more"
        )
    return hashlib.sha256(key.encode()).digest()


def _hex(value: object) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ConfigurationError("key_sha256 must be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them")
    return bytes.fromhex(value)


def _budget(name: str, table: Any) -> Budget:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{name}={table!r} must be a table of limits, such as {{ usd = 1.0 }}")
    try:
        return Budget(**table)
    except TypeError:
        raise ConfigurationError(
            f"{name}: the limits are calls, tokens, usd and seconds, not {sorted(table)}"
        ) from None


def tightest(*budgets: Budget | None) -> Budget | None:
    """Return the limits that keep all of the given ones, or None if there are none."""
    limits: dict[str, Any] = {}
    for name in ("calls", "tokens", "usd", "seconds"):
        given = [getattr(b, name) for b in budgets if b is not None and getattr(b, name) is not None]
        if given:
            limits[name] = min(given)
    return Budget(**limits) if limits else None
