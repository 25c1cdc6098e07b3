"""Groups of options that several commands share. A command takes a group as one parameter."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from tts_plugins._internal.secrets import public_address
from tts_plugins.budget import Budget
from tts_plugins.cli._arguments import options


@dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """The model that writes the candidates."""

    model: options.Model = None
    base_url: options.BaseUrl = None
    api_key_env: options.ApiKeyEnv = None
    temperature: options.Temperature = None
    max_tokens: options.MaxTokens = 1024
    system: options.System = None
    price: options.Price = None
    threads: options.Threads = None

    def settings(self) -> dict[str, Any]:
        """Return what `build.model_of` takes, by name."""
        return {"name" if field == "model" else field: value for field, value in vars(self).items()}


def recorded(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of a model that are kept with its results: no key, and nothing that changes no result."""
    kept = {name: value for name, value in model.items() if name not in ("api_key_env", "price", "threads")}
    return {**kept, "base_url": public_address(kept["base_url"])} if "base_url" in kept else kept


@dataclass(frozen=True, kw_only=True)
class JudgeGroup:
    """The model that a verifier asks."""

    judge_model: options.JudgeModel = None
    judge_base_url: options.JudgeBaseUrl = None
    judge_api_key_env: options.JudgeApiKeyEnv = None

    def settings(self) -> dict[str, Any]:
        """Return what `build.judge_of` takes, by name."""
        return {"name": self.judge_model, "base_url": self.judge_base_url, "api_key_env": self.judge_api_key_env}


@dataclass(frozen=True, kw_only=True)
class BudgetGroup:
    """The limits of a solve, or of a whole run."""

    budget_calls: options.BudgetCalls = None
    budget_tokens: options.BudgetTokens = None
    budget_usd: options.BudgetUsd = None
    budget_seconds: options.BudgetSeconds = None

    def budget(self) -> Budget | None:
        """Return the budget; None if no limit was given.

        Raises:
            ConfigurationError: a limit is not above 0.
        """
        limits = {field.removeprefix("budget_"): value for field, value in vars(self).items()}
        return None if set(limits.values()) == {None} else Budget(**limits)


@dataclass(frozen=True, kw_only=True)
class PlacingGroup:
    """How FLOPs are counted, and a larger model to compare with."""

    params: options.Params = None
    verifier_params: options.VerifierParams = None
    larger: options.LargerFile = None
    larger_params: options.LargerParams = None


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with an option for each field of its groups: typer reads them from the signature.

    The default of a group's parameter has the defaults of its options.
    """
    defaults: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(parameter.default):
            group = defaults[name] = parameter.default
            kinds = get_type_hints(type(group), include_extras=True)
            for field, default in vars(group).items():
                flat.append(parameter.replace(name=field, default=default, annotation=kinds[field], kind=_BY_NAME))
        else:
            flat.append(parameter.replace(annotation=hints[name], kind=_BY_NAME))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        groups = {
            name: dataclasses.replace(group, **{field: given.pop(field) for field in vars(group)})
            for name, group in defaults.items()
        }
        command(**given, **groups)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


_BY_NAME = inspect.Parameter.KEYWORD_ONLY
