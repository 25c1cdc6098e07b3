"""Which proxy a request takes, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as httpx reads them.

A loopback address is never asked through a proxy.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit
from urllib.request import getproxies

from tts_plugins._internal.http_limits import check_address
from tts_plugins._internal.secrets import hidden_address


def proxy_for(url: str) -> str | None:
    """The proxy's address for requests to `url`; None where they go there directly.

    Raises:
        ConfigurationError: the environment has something else in its place, past which no request is to go.
    """
    parts, known = urlsplit(url), getproxies()
    host = (parts.hostname or "").lower()
    if is_loopback(url) or _excepted(parts.scheme, host, parts.port, known.get("no", "")):
        return None
    found = known.get(parts.scheme) or known.get("all")
    if not found:
        return None
    proxy = found if "://" in found else f"http://{found}"
    if proxy.startswith(("http://", "https://")):  # of others the HTTP client tells whether it knows them
        check_address("HTTP_PROXY, HTTPS_PROXY and ALL_PROXY", hidden_address(proxy), f"the proxy for {parts.scheme}")
    return proxy


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine."""
    host = (urlsplit(url).hostname or "").lower()
    address = _address(host)
    local = address is not None and (address.is_loopback or address.is_unspecified)
    return local or host == "localhost" or host.endswith(".localhost")


def _excepted(scheme: str, host: str, port: int | None, entries: str) -> bool:
    return any(_excepts(entry.strip().lower(), scheme, host, port) for entry in entries.split(","))


def _excepts(entry: str, scheme: str, host: str, port: int | None) -> bool:
    """Whether this entry of NO_PROXY names the host."""
    if entry == "*":
        return True
    wanted, found, rest = entry.partition("://")
    if found:
        if wanted not in (scheme, "all"):
            return False
        entry = rest
    entry, wanted_port = _split_port(entry.rstrip("/"))
    if not entry or (wanted_port is not None and wanted_port != (port or {"http": 80, "https": 443}.get(scheme))):
        return False
    try:
        network = ipaddress.ip_network(entry.strip("[]").replace("]/", "/"), strict=False)
    except ValueError:
        pass
    else:
        address = _address(host)
        return address is not None and address in network
    if entry.startswith(("*.", ".")):
        return host.endswith("." + entry.lstrip("*."))
    if found or entry == "localhost":
        return host == entry
    return host == entry or host.endswith("." + entry)


def _split_port(entry: str) -> tuple[str, int | None]:
    host, found, port = entry.rpartition(":")
    if found and port.isdigit() and (":" not in host or host.endswith("]")):
        return host, int(port)
    return entry, None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
