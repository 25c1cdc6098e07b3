"""Keep keys out of everything that is shown: errors, logs, traces, tracebacks with local variables. Pure."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from tts_plugins._internal.values import linked
from tts_plugins.errors import ConfigurationError

# Headers that clients and proxies set by themselves; their values are words of every message.
_PLAIN = re.compile(
    r"accept(-\w+)*|connection|content-(type|length|encoding)|date|host|transfer-encoding|user-agent|x-stainless-.*|"
    r"openai-(beta|version)|anthropic-(version|beta)"
)
E = TypeVar("E", bound=BaseException)
T = TypeVar("T")
_LOGIN = re.compile(r"(?<=://)[^\s/?#@'\"]+@")
_SCHEMES = {"bearer", "basic", "token", "key", "apikey", "digest"}
_SHORTEST = 4  # shorter values are part of ordinary words
_BEGIN = 8


class Hidden(str):
    """A value that is sent as it is and never shown: its `repr` holds none of it, wherever a variable is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"

    def __copy__(self) -> Hidden:
        return self

    def __deepcopy__(self, memo: Any) -> Hidden:
        return self


def hidden(value: T) -> T:
    """Return the value so that it does not show, if it is a text."""
    return cast("T", Hidden(value)) if isinstance(value, str) else value


def hidden_address(url: T) -> T:
    """Return an address so that it does not show, if it may hold a password or a key."""
    return hidden(url) if isinstance(url, str) and re.search("[@?#]", url) else url


def public_address(url: str | None) -> str | None:
    """Return an address without its login and without what follows a question mark, to be kept in files."""
    return url if url is None else _LOGIN.sub("", url.split("?")[0].split("#")[0])


def split_login(url: str, header: str = "Authorization") -> tuple[str, dict[str, str]]:
    """Return an address without its login, and the header that carries it: few clients read it from the address."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, {header: Hidden(f"Basic {base64.b64encode(login).decode()}")}


def hidden_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers with values that do not show."""
    if headers is not None and not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers is of type {type(headers).__name__}; give a dict of texts")
    return {name: hidden(value) for name, value in (headers or {}).items()}


_SECRET = re.compile(r"key|token|sig|secret|code|pass|cookie|auth(?!ors?\b)", re.IGNORECASE)


def secrets_in(headers: Any, *keys: str | None, url: str = "") -> frozenset[str]:
    """Return the values that must not show: of all but the plain headers, of addresses, and further keys."""
    given = [v for name, v in dict(headers or {}).items() if not _PLAIN.fullmatch(str(name).lower())]
    # A client has objects in the place of headers that it leaves out; their words are those of ordinary messages.
    values = [v.decode("latin-1") if isinstance(v, bytes) else v for v in given if isinstance(v, str | bytes)]
    address = urlsplit(url) if "@" in url else None
    values += [unquote(address.password)] if address is not None and address.password else []
    values += _under_secret_names(parse_qs(urlsplit(url).query) if "?" in url else {})
    return frozenset(v for v in (*values, *(k for k in keys if k)) if len(v.strip()) >= _SHORTEST)


def secrets_of_request(fields: Mapping[str, Any]) -> frozenset[str]:
    """Return the values that must not show of what a client's method is given beside the request."""
    named = [*_under_secret_names(fields.get("extra_query")), *_under_secret_names(fields.get("extra_body"))]
    return secrets_in(fields.get("extra_headers"), *named)


def _under_secret_names(fields: Any, named: bool = False) -> Iterator[str]:
    """Yield the texts that have a name as keys have, however deep; `named` says whether these fields have one."""
    if isinstance(fields, str):
        yield from [fields] if named else ()
    elif isinstance(fields, Mapping):
        for name, value in fields.items():
            yield from _under_secret_names(value, _SECRET.search(str(name)) is not None)
    elif isinstance(fields, list | tuple):
        for value in fields:
            yield from _under_secret_names(value, named)


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return the text with every secret replaced by "…", in each form in which servers and clients quote one.

    So is the login of every address in it, such as one that a server redirects to.
    """
    text = _LOGIN.sub("…@", text)
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = _without_begins(text.replace(form, "…"), form)
    return text


def _without_begins(text: str, secret: str) -> str:
    """Return the text without the beginning of a secret whose rest was cut off with the message."""
    begin, out, after = secret[:_BEGIN], list[str](), 0
    while len(secret) >= 2 * _BEGIN and (at := text.find(begin, after)) >= 0:
        out += text[after:at], "…"
        said = text[at : at + len(secret)]
        after = at + next((i for i, (a, b) in enumerate(zip(secret, said, strict=False)) if a != b), len(said))
    return "".join([*out, text[after:]])


def _forms(secret: str) -> Iterable[str]:
    words = [word for word in re.split(r"[\s,;=]+", secret) if word.lower() not in _SCHEMES]
    for part in (secret.strip(), " ".join(secret.split()), *words):
        for form in (part, json.dumps(part)[1:-1], repr(part)[1:-1], quote(part, safe="")):
            if len(form) >= _SHORTEST:
                yield form


def cleaned(error: E, secrets: Iterable[str]) -> E:
    """Return the error itself, after `clean_causes`; raise it where no variable holds what a server wrote."""
    clean_causes(error, secrets)
    return error


def clean_causes(error: BaseException, secrets: Iterable[str]) -> None:
    """Take secrets out of an error and its causes: out of their texts, and of their frames' variables.

    The frames of an HTTP client hold the request with its headers; a report that prints local variables shows them.
    """
    secrets = list(secrets)
    for each in linked(error):
        each.__traceback__ = None
        each.args = tuple(_clean(value, secrets) for value in each.args)
        _clean_texts(each, ("message", "body", "reason", "msg", "doc", "said", "object"), secrets)
        _clean_request(getattr(each, "request", None), secrets)
        response = getattr(each, "response", None)
        _clean_request(getattr(response, "request", None), secrets)
        _clean_texts(response, ("_content", "_text"), secrets)  # httpx's, which has no other way to change them


def _clean_request(request: Any, secrets: list[str]) -> None:
    """Remove secrets from the request of an HTTP client's error, since its parts may be pickled or printed."""
    headers: Any = getattr(request, "headers", {})
    url: Any = getattr(request, "url", None)  # httpx's, whose text has a password that the address carries
    if hasattr(url, "copy_with") and without_secrets(str(url), secrets) != str(url):
        request.url = url.copy_with(userinfo=b"", query=None)
    try:
        for name, value in list(headers.items()):
            if (shown := without_secrets(value, secrets)) != value:
                headers[name] = shown.encode("ascii", "replace").decode()
    except (AttributeError, TypeError, ValueError):
        return  # it is of another kind, and holds no headers that could be changed


def _clean_texts(thing: Any, names: Iterable[str], secrets: list[str]) -> None:
    for name in names:
        value = getattr(thing, name, None)
        if isinstance(value, str | bytes | Mapping | list) and (shown := _clean(value, secrets)) != value:
            with contextlib.suppress(AttributeError):  # a class may not let it be changed
                setattr(thing, name, shown)


def _clean(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        return without_secrets(value, secrets)
    if isinstance(value, bytes):
        return without_secrets(value.decode("utf-8", "replace"), secrets).encode()
    if isinstance(value, Mapping):
        return {key: _clean(v, secrets) for key, v in value.items()}
    if isinstance(value, list):
        return [_clean(v, secrets) for v in value]
    return value
