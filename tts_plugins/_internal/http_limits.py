"""Limits of HTTP that every client of ours keeps: addresses that can be used, redirects, and the size of an answer."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from tts_plugins.errors import ConfigurationError

MOST_BYTES = 64 * 2**20
"""Of one answer, once decompressed: far more than any completion, and little enough to be held."""
ENCODINGS = "gzip, deflate"
"""What answers may be compressed with: what is decompressed here, in pieces."""
REDIRECTS = 5
"""That one request follows at most."""
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = {"content-length", "transfer-encoding"}
_PIECE = 2**16


class Unreadable(Exception):
    """An answer cannot be read. Code that knows the model and its keys turns this into a `MalformedResponse`.

    Attributes:
        final: another attempt would not help.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def check_address(owner: str, url: object, field: str = "base_url") -> None:
    """Raise unless a request can be sent to this address.

    Raises:
        ConfigurationError: it has no scheme or host, has blanks, or an invalid port. A password in it is not shown.
    """
    if wrong := _wrong_address(url):
        shown = "" if not isinstance(url, str) else f"={_shown(url)!r}"
        raise ConfigurationError(f"{owner}: {field}{shown} {wrong}; write it as http://host:port/v1")


def _wrong_address(url: object) -> str:
    """Return what is wrong with an address. Nothing is raised here, where variables hold its password."""
    if not isinstance(url, str):
        return f"is of type {type(url).__name__}"
    if re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", url):
        return "holds blanks, line breaks or characters that no address can have"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return "is not an address" if "@" in url else f"is not an address ({error})"
    if parts.scheme not in _PORTS or not host:
        return "is not an address"
    try:
        host.encode("idna")
        if not host.isascii():
            _idna2008(host)
    except UnicodeError:
        return "names a host that cannot be one"
    return "names port 0" if port == 0 else ""


def _idna2008(host: str) -> None:
    """Raise UnicodeError unless httpx can send to the host; other clients would look for a server of that name."""
    try:
        encode = importlib.import_module("idna").encode
    except ImportError:  # nor is there httpx
        return
    encode(host.lower())


def _shown(url: str) -> str:
    return url.rpartition("@")[2].partition("?")[0][:80]


def check_headers(owner: str, headers: Mapping[str, str] | None) -> None:
    """Raise unless these headers can be sent.

    Raises:
        ConfigurationError: a name or a value that HTTP does not allow. The value is not shown: it may be a key.
    """
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(f"{owner}: headers has the name {str(name)[:60]!r}, which HTTP does not allow")
        if name.lower() in _FRAMING:
            raise ConfigurationError(f"{owner}: headers has {name!r}, which depends on each body; leave it out")
        check_value(owner, f"headers[{name!r}]", value)


def check_value(owner: str, field: str, value: object) -> None:
    """Raise unless a header can have this value, which is not shown."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{owner}: {field} is of type {type(value).__name__}; give a str")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise ConfigurationError(
            f"{owner}: {field} holds a line break or another control character, which no header may; strip it"
        )
    if value != value.strip():
        raise ConfigurationError(f"{owner}: {field} has blanks at its ends, which no header may; strip it")
    if not value.isascii():
        raise ConfigurationError(f"{owner}: {field} holds characters that are not ASCII, which no header may")


def same_origin(url: str, target: str) -> bool:
    """Return whether a redirect stays with the server that was asked; to TLS on the same host it does."""
    here, there = urlsplit(url), urlsplit(target)
    if here.hostname != there.hostname:
        return False
    ports = [part.port or _PORTS.get(part.scheme) for part in (here, there)]
    upgrade = (here.scheme, there.scheme) == ("http", "https") and ports == [80, 443]
    return upgrade or (here.scheme == there.scheme and ports[0] == ports[1])


def redirected(url: str, target: str) -> str:
    """Return the address that an answer's Location leads to, relative to the one that was asked; "" if it is none."""
    try:
        return urljoin(url, target)
    except ValueError:
        return ""


def check_redirect(status: int, who: str, url: str, target: str) -> None:
    """Raise ConfigurationError unless a request can be sent again where an answer of this status leads.

    It can within the server that was asked, and only as it is: a status other than 307 and 308 asks for a GET.
    """
    if not same_origin(url, target):
        raise redirect_error(who, target)
    if status not in (307, 308):
        raise redirect_error(who, target, url)


def redirect_error(who: str, target: str, url: str = "") -> ConfigurationError:
    """Return the error for a redirect that is not followed: to another server, unless `url` is of the same."""
    parts = urlsplit(target)
    if url and same_origin(url, target):
        path = parts.path.partition(";")[0][:80]  # what follows may be a key, as what follows a question mark
        return ConfigurationError(f"{who}: it redirects to {path!r}; change the path of base_url to match")
    there = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return ConfigurationError(
        f"{who}: it redirects to another server, {there}, which would get the prompt and the headers; if it is yours, "
        "give its address as base_url"
    )


def header(headers: Any, name: str) -> str | None:
    """Return a header's value, with commas between if it was sent several times; None if there is none."""
    every = getattr(headers, "getall", None)
    return headers.get(name) if every is None else ", ".join(every(name, ())) or None


class BodyReader:
    """Decompresses an answer piece by piece, and ends it if it grows too big.

    Args:
        encoding: the answer's Content-Encoding.
        length: its Content-Length, if it has one.

    Raises:
        Unreadable: it is bigger than `most` bytes, or is compressed in a way that was not asked for.
    """

    def __init__(self, encoding: str | None, length: str | None = None, most: int = MOST_BYTES) -> None:
        codings = [c for c in re.split(r"[\s,]+", (encoding or "").lower()) if c not in ("", "identity")]
        if codings not in ([], ["gzip"], ["x-gzip"], ["deflate"]):
            raise Unreadable(
                f"the answer is compressed as {encoding!r:.40}, and {ENCODINGS} was asked for; have the server, or the "
                "proxy before it, send that",
                final=True,
            )
        self._packed, self._zlib = bool(codings), codings == ["deflate"]
        self._inflate: zlib._Decompress | None = None
        self._head, self._begun = b"", False
        self._most, self._size = most, 0
        if length is not None and length.isdigit() and int(length) > most:
            self._refuse()

    def feed(self, data: bytes) -> list[bytes]:
        """Return what the next bytes bring, decompressed, in pieces."""
        if not self._packed:
            return [self._count(data)] if data else []
        out, more = list[bytes](), False
        while data or more:
            if self._inflate is None and not (data := self._begin(data)):
                break
            assert self._inflate is not None
            try:
                out.append(self._count(self._inflate.decompress(data, _PIECE)))
            except zlib.error as error:
                raise Unreadable(f"the answer cannot be decompressed ({error})") from None
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            more = len(out[-1]) == _PIECE and not self._inflate.eof  # it may have read all, and not written all
            if self._inflate.eof:
                self._inflate = None
        return [piece for piece in out if piece]

    def _begin(self, data: bytes) -> bytes:
        """Begin to decompress, or go on with gzip's next member; return the data, none if it cannot be begun with."""
        self._head, data = b"", self._head + data
        if len(data) < 2:
            self._head = data
            return b""
        gzip, zlibs = data[:2] == b"\x1f\x8b", data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        if self._begun and not gzip:
            self._count(data)  # whatever follows is no part of the answer
            return b""
        # Some servers omit the head of two bytes of deflate.
        raw = self._zlib and not (gzip or zlibs)
        self._inflate, self._begun = zlib.decompressobj(-zlib.MAX_WBITS if raw else zlib.MAX_WBITS | 32), True
        return data

    def _count(self, data: bytes) -> bytes:
        self._size += len(data)
        if self._size > self._most:
            self._refuse()
        return data

    def _refuse(self) -> None:
        raise Unreadable(
            f"the answer is bigger than {self._most // 2**20} MB, and no completion is; is base_url right?",
            final=True,
        )
