"""Which way requests to an address of our own take."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from urllib.parse import urlsplit

from tts_plugins._http.proxies import proxy_for
from tts_plugins._internal.threads import in_thread
from tts_plugins.errors import ConfigurationError

_SHORT_ADDRESS = re.compile(r"\d+(\.\d+){0,2}")
VARIABLE = "TTS_PLUGINS_TRANSPORT"


def uses_aiohttp(address: str) -> bool:
    """Whether aiohttp is installed, wanted, and enough for this address.

    What it has no words for is left to others: a password or a query in the address, an IPv4 address in short such as
    127.1, headers that the environment has for OpenAI's client, and proxies of SOCKS.

    Raises:
        ConfigurationError: the environment asks for a way that is not known, or through a proxy that is none.
    """
    wanted = os.environ.get(VARIABLE, "") or "aiohttp"
    if wanted not in ("aiohttp", "openai"):
        raise ConfigurationError(f"{VARIABLE}={wanted!r} is not known; use 'aiohttp' or 'openai'")
    proxy = proxy_for(address)  # whichever way they take, not past a proxy that is none
    if wanted != "aiohttp" or importlib.util.find_spec("aiohttp") is None:
        return False
    parts = urlsplit(address)
    if "@" in parts.netloc or parts.query or parts.fragment or "OPENAI_CUSTOM_HEADERS" in os.environ:
        return False
    if _SHORT_ADDRESS.fullmatch(parts.hostname or ""):
        return False
    try:
        return proxy is None or urlsplit(proxy).scheme in ("http", "https")
    except ValueError:  # it is not an address, of which the client will tell
        return False


async def imported(name: str) -> None:
    """Import a module beside the loop: up to half a second and more, in which it could keep no deadline."""
    if name not in sys.modules:
        await in_thread(importlib.import_module, name)
