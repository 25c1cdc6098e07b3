"""Configuration objects: frozen, comparable, and the same after a round trip through a dict.

A configured class is known by a name: its own, in snake case. Third parties register theirs under the entry
point group `tts_plugins.<family>` (`strategies`, `stopping`, `verifiers`, `models`); they are loaded when looked up.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from tts_plugins.errors import ConfigurationError

T = TypeVar("T", bound="Configured")
_FAMILIES: dict[str, dict[str, type[Configured]]] = {}


class Configured:
    """Base of configuration classes: gives `to_dict` and `from_dict`, and registers the class by name."""

    family: ClassVar[str]
    type_name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "family" in cls.__dict__ or cls.__name__.startswith("_"):
            return  # the root of a family, or something private, has no name of its own
        cls.type_name = cls.__dict__.get("type_name") or _snake(cls.__name__)
        _FAMILIES.setdefault(cls.family, {})[cls.type_name] = cls

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable settings, with the class's name as "type".

        Raises:
            ConfigurationError: a setting is a function or another object that has no form in JSON.
        """
        out: dict[str, Any] = {"type": self.type_name}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            if f.init:
                out[f.name] = _plain(getattr(self, f.name), f"{type(self).__name__}.{f.name}")
        return out

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The object whose `to_dict` gave these settings.

        Raises:
            ConfigurationError: an unknown type, an unknown or missing field, or a value that the class refuses.
        """
        return build(cls, settings)


def build(root: type[T], settings: Mapping[str, Any]) -> T:
    """The configured object of `root`'s family that the settings describe."""
    name = settings.get("type", getattr(root, "type_name", None))
    known = registered(root.family)
    if name not in known:
        raise ConfigurationError(f"{root.family}: type={name!r} is not known; use one of {', '.join(sorted(known))}")
    cls = known[name]
    fields = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    values = {key: value for key, value in settings.items() if key != "type"}
    if unknown := sorted(set(values) - fields):
        raise ConfigurationError(f"{name}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(fields))}")
    for key, value in values.items():
        if isinstance(value, Mapping) and "type" in value:
            values[key] = build(_root_of(value["type"], f"{name}.{key}"), value)
        elif isinstance(value, list):
            values[key] = tuple(
                build(_root_of(v["type"], f"{name}.{key}"), v) if isinstance(v, Mapping) and "type" in v else v
                for v in value
            )
    try:
        made = cls(**values)
    except TypeError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    if not isinstance(made, root):
        raise ConfigurationError(f"type={name!r} is a {type(made).__name__}, where a {root.__name__} is wanted")
    return made


def registered(family: str) -> Mapping[str, type[Configured]]:
    """The classes of a family by name, those of other packages' entry points included."""
    import importlib.metadata  # slow to import, and rarely needed

    for entry in importlib.metadata.entry_points(group=f"tts_plugins.{family}"):
        if entry.name not in _FAMILIES.setdefault(family, {}):
            _FAMILIES[family][entry.name] = entry.load()
    return _FAMILIES.get(family, {})


def check_count(owner: str, name: str, value: object, *, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`, naming the field, the value and the mend."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{owner}: {name}={value!r} must be a whole number of at least {least}")


def check_share(owner: str, name: str, value: object) -> None:
    """Refuse what is no number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigurationError(f"{owner}: {name}={value!r} must be a number from 0 to 1")


def _root_of(name: object, where: str) -> type[Configured]:
    for family in list(_FAMILIES):
        if isinstance(name, str) and name in registered(family):
            return registered(family)[name]
    raise ConfigurationError(f"{where}: type={name!r} is not known")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Configured):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(v, where) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v, where) for k, v in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ConfigurationError(f"{where}={value!r} has no form in JSON; register a class of your own for it")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
