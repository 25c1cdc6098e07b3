"""Reads the strategy that was typed, for `solve` and `bench`. Nothing here calls a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

from tts_plugins._internal.config import build, find, registered, spoken
from tts_plugins.cli._arguments.verifier import named
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.policies import ComputeOptimal, Ladder, Rung
from tts_plugins.profiles import load_profile
from tts_plugins.protocols import Strategy
from tts_plugins.stopping import AnyOf, Rule, ShippedRule
from tts_plugins.strategies import BaseStrategy, BestOfN


def strategy_of(text: str | None, settings: Mapping[str, Any], *, verified: bool) -> Strategy:
    """Make the strategy of a registered name, in kebab or snake case; without a name, one that suits the verifier.

    Args:
        text: a name, which may bring settings of its own, as in `best-of-n:n=4,stop=vote-lead:3` or
            `compute-optimal:file=policy.json`; or `profile:NAME`, or `python:path/file.py:object`.
        settings: its fields, as the options beside it have them.
        verified: whether there is a verifier to choose by.

    Raises:
        ConfigurationError: an unknown name, an unknown field, a value that the strategy refuses, or one that is given
            twice and differs.
    """
    name, _, own = (text or "").partition(":")
    if name in ("profile", "python"):
        if settings:
            raise ConfigurationError(
                f"--strategy {text} has its settings itself; leave out {_spelled(next(iter(settings)))}"
            )
        return _of_profile(own, text) if name == "profile" else _object(own, text)
    if name == "ladder":
        return _ladder(own, settings, verified=verified)
    given = settings_of(list(filter(None, own.split(","))), f"--strategy {name}:")
    if "stop" in given:
        given["stop"] = stop_of(str(given["stop"]).split("|"))
    for field, value in settings.items():
        if given.setdefault(field, value) != value:
            raise ConfigurationError(
                f"--strategy {text} and {_spelled(field)} give different values of {field}; give it once"
            )
    known = registered("strategies")
    kind = find(known, name or ("best-of-n" if verified else "self-consistency"))
    if kind is None:
        raise ConfigurationError(f"--strategy {name} is not known; use one of {spoken(known)}")
    if kind is ComputeOptimal:
        return _policy(given, verified)
    fields = {f.name for f in dataclasses.fields(cast(Any, kind)) if f.init}
    if "n" in fields:
        given.setdefault("n", 8)
    if unknown := sorted(set(given) - fields):
        raise ConfigurationError(
            f"--strategy {spoken([kind.type_name])} has no setting {unknown[0]!r}; it has {', '.join(sorted(fields))}"
        )
    made: Strategy = cast(BaseStrategy, build(kind, {**given, "type": kind.type_name}))
    if isinstance(made, BestOfN) and made.n > 1 and not verified:
        raise ConfigurationError("--strategy best-of-n needs a --verifier to choose by; or use self-consistency")
    return made


_OF_RUNG = ("model", "effort", "price", "enough", "beside")


def _ladder(text: str, settings: Mapping[str, Any], *, verified: bool) -> Ladder:
    """Read `ladder: SETTINGS > NAME:FIELD=VALUE,… > …`: strategies from cheap to dear, with a rung's own fields."""
    parts = [part.strip() for part in text.split(">") if part.strip()]
    own: dict[str, Any] = dict(settings)
    if parts and ":" not in parts[0] and "=" in parts[0]:
        own |= settings_of(list(filter(None, parts.pop(0).split(","))), "--strategy ladder:")
    if unknown := sorted(set(own) - {"signal", "enough"}):
        raise ConfigurationError(f"--strategy ladder has no setting {unknown[0]!r}; it has signal and enough")
    if not parts:
        raise ConfigurationError(
            '--strategy ladder needs its rungs: --strategy "ladder: self-consistency:n=2 > self-consistency:n=8"'
        )
    rungs = []
    for part in parts:
        name, _, fields = part.partition(":")
        pairs = list(filter(None, fields.split(",")))
        mine = [pair for pair in pairs if pair.partition("=")[0].strip() in _OF_RUNG]
        rest = ",".join(pair for pair in pairs if pair not in mine)
        strategy: Any = strategy_of(f"{name.strip()}:{rest}", {}, verified=verified)
        rungs.append(Rung(strategy=strategy, **settings_of(mine, f"--strategy ladder: {name.strip()}:")))
    return Ladder(rungs, **own)


def _spelled(field: str) -> str:
    """Return the option that sets a field."""
    return f"--{field}" if field in ("n", "select", "stop") else f"--set {field}=…"


def _of_profile(name: str, text: str | None) -> Strategy:
    strategy = load_profile(name).strategy
    if strategy is None:
        raise ConfigurationError(f"--strategy {text}: that profile has no strategy")
    return strategy


def _object(where: str, text: str | None) -> Strategy:
    if ":" not in where:
        raise ConfigurationError(f"--strategy {text}: write python:package.module:object or python:path/file.py:object")
    found = named(where, f"--strategy {text}")
    if isinstance(found, type) or not callable(found):
        raise ConfigurationError(f"--strategy {text}: {where} is not a strategy; name an object such as BestOfN(n=8)")
    return cast(Strategy, found)


def _policy(settings: Mapping[str, Any], verified: bool) -> ComputeOptimal:
    known = ("file", "budget", "any_model", "any_verifier")
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigurationError(f"--strategy compute-optimal has no setting {unknown[0]!r}; it has {', '.join(known)}")
    if "file" not in settings:
        raise ConfigurationError(
            "--strategy compute-optimal needs the file that `tts-plugins calibrate` wrote: "
            "compute-optimal:file=policy.json"
        )
    path = str(settings["file"])
    made = ComputeOptimal.from_file(path, **{k: v for k, v in settings.items() if k != "file"})
    if not verified and (scored := next((s for s in _asked(made) if isinstance(s, BestOfN) and s.n > 1), None)):
        raise ConfigurationError(
            f"--strategy compute-optimal:file={path} chooses by score, {scored!r}; give --verifier"
        )
    return made


def _asked(policy: ComputeOptimal) -> Iterator[BaseStrategy]:
    """Return the strategies that it may run."""
    plans = [p for p in policy.plans if policy.budget is None or p.budget <= policy.budget]
    parts = [part for p in plans for part in (p.fixed, *(c for stage in p.stages for c in stage.choices))]
    for part in (part for part in parts if part is not None):
        yield from (rung.strategy for rung in part.rungs) if isinstance(part, Ladder) else (part,)


def with_larger(
    strategy: Strategy, model: OpenAICompatibleModel, *, abstains: bool, escalates: bool = False
) -> tuple[Strategy, dict[str, Any]]:
    """Give a policy or a ladder the larger model that it may use; any other that abstains escalates to it.

    Args:
        abstains: whether there is a threshold below which nothing is answered.
        escalates: whether a profile says that what is below it is asked again.

    Returns:
        The strategy, and the settings of the solve that come with it.

    Raises:
        ConfigurationError: it never asks another model, or was fitted to another larger model.
    """
    if isinstance(strategy, Ladder) and model.name in strategy.names:
        strategy = strategy.with_models({model.name: model})
    elif isinstance(strategy, ComputeOptimal) and (strategy.larger is not None or not abstains):
        strategy = strategy.with_larger(model)
    elif abstains:
        escalates = True
    else:
        raise ConfigurationError(
            f"--larger-model {model.name} is for a policy that may ask it, compute-optimal:file=policy.json, for a "
            f"ladder with a rung of model={model.name}, or for --abstain-below, where it is asked what is unsure"
        )
    return strategy, {"on_abstain": "escalate", "escalate": model} if escalates else {}


def settings_of(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Read `FIELD=VALUE` pairs; a value is JSON if it parses, else text.

    Raises:
        ConfigurationError: one has no "=".
    """
    made = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals or not field:
            raise ConfigurationError(f"{option} {pair}: write FIELD=VALUE, such as {option} wave=4")
        made[field.strip().replace("-", "_")] = _value(value)
    return made


def stop_of(rules: Sequence[str]) -> Rule | str | None:
    """Read `NAME`, `NAME:VALUE` or `NAME:FIELD=VALUE,…`; any of several may stop the search.

    A shipped rule ("careful", "balanced", "bold") stays a name, since it depends on the strategy.

    Raises:
        ConfigurationError: an unknown rule, or a value that it refuses.
    """
    if len(rules) == 1 and rules[0] in get_args(ShippedRule):
        return rules[0]
    made = [_rule(text) for text in rules]
    return None if not made else made[0] if len(made) == 1 else AnyOf(rules=tuple(made))


def _rule(text: str) -> Rule:
    name, _, rest = text.partition(":")
    known = {
        key: cls for key, cls in registered("stopping").items() if not key.endswith("_of")
    }  # combined rules hold other rules
    kind = find(known, name)
    if kind is None:
        raise ConfigurationError(
            f"--stop {text}: {name!r} is not a rule; use one of {spoken(known)}, or careful, balanced or bold alone"
        )
    fields = [f.name for f in dataclasses.fields(cast(Any, kind)) if f.init]
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        field, equals, value = part.rpartition("=")
        field = field.strip().replace("-", "_") if equals else (fields or [""])[0]
        if field not in fields:
            takes = f"it takes {', '.join(fields)}" if fields else "it takes no value"
            raise ConfigurationError(f"--stop {text}: {name} does not take {part!r}; {takes}")
        values[field] = _value(value)
    try:
        return cast(Rule, kind(**values))
    except TypeError:
        raise ConfigurationError(f"--stop {text}: {name} needs a value for {fields[0]}: {name}:VALUE") from None


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
