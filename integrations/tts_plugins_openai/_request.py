"""What a request says to the server, and what it says to the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import openai
from openai import NotGiven

from tts_plugins import Escalation
from tts_plugins.adapters import SearchSettings, is_whole
from tts_plugins.errors import ConfigurationError

OWNER = "scale(client)"
PERSON = "person"
_OMITTED = (NotGiven, getattr(openai, "Omit", NotGiven))  # the clients before 1.108 have the older name only


def split(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the part of a request that is for the server, and the part that is for the search."""
    sent = {key: value for key, value in request.items() if not isinstance(value, _OMITTED)}
    asked = dict(_settings(sent.pop("tts", None)))
    body = sent.get("extra_body")
    if isinstance(body, Mapping) and "tts" in body:
        asked = {**_settings(body["tts"]), **asked}
        sent["extra_body"] = {key: value for key, value in body.items() if key != "tts"}
        if not sent["extra_body"]:
            del sent["extra_body"]
    if asked.get("seed") is None and sent.get("seed") is not None:
        asked["seed"] = sent["seed"]  # each candidate's own is derived from it
    return sent, asked


def _settings(value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigurationError(f'{OWNER}: tts={value!r} must be a dict of settings, such as {{"n": 4}}')
    return value or {}


def check(settings: SearchSettings, request: Mapping[str, Any]) -> None:
    """Raise unless a search can answer this request.

    Raises:
        ConfigurationError: several samples at temperature 0, or more choices than candidates.
    """
    n, asked = settings.n, request.get("n")
    if request.get("temperature") == 0 and n is not None and n > 1:
        raise ConfigurationError(
            f"{OWNER}: {n} samples at temperature=0 would be the same one; set temperature to about 0.8, or ask for "
            'one sample with extra_body={"tts": {"n": 1}}'
        )
    if asked is not None and not is_whole(asked, 1):
        raise ConfigurationError(f"{OWNER}: n={asked!r} choices are asked for; n must be a whole number of at least 1")
    if asked is not None and n is not None and asked > n:
        raise ConfigurationError(
            f"{OWNER}: n={asked} choices are asked of a search over {n} candidates; give the strategy n={asked} or more"
        )


def check_escalation(owner: str, settings: SearchSettings) -> None:
    """Raise unless `escalate` is a model's name, a strategy, or a person.

    Raises:
        ConfigurationError: it is something else, or a model's name under a price that is said to be that of one model.
    """
    further, price = settings.escalate, settings.price
    if further is None or further == PERSON:
        return
    if isinstance(further, str):
        if price is not None and not isinstance(price, Mapping):
            raise ConfigurationError(
                f"{owner}: escalate={further!r} names another model, and price={price!r} is that of one; pass a dict "
                "of prices by the models' names"
            )
        return
    if Escalation.of(owner, further).model is not None:
        raise ConfigurationError(
            f"{owner}: escalate={further!r} is a model of tts_plugins, whose answers are not the client's; pass the "
            "name of one of the client's models"
        )
