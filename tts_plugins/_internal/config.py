"""Configuration objects: frozen, comparable, and the same after a round trip through a dict.

A configured class is known by its own name in snake case; hyphens work too, and are used in what people read. Third
parties register theirs under the entry point group `tts_plugins.<family>` (`strategies`, `stopping`, `verifiers`,
`models`); they are loaded when looked up.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from tts_plugins._internal.values import is_number, is_whole
from tts_plugins.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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
        """Return JSON-serialisable settings, with the class's name as "type".

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
        """Return the object whose `to_dict` gave these settings.

        Raises:
            ConfigurationError: an unknown type, an unknown or missing field, or a value that the class refuses.
        """
        return build(cls, settings)


def build(root: type[T], settings: object) -> T:
    """Return the configured object of `root`'s family that the settings describe."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{root.family}: {settings!r} is not a mapping of settings; give one with a 'type'")
    name = settings.get("type", getattr(root, "type_name", None))
    known: Mapping[str, type[Configured]] = _FAMILIES.get(root.family, {})
    cls = find(known, name) or find(known := registered(root.family), name)
    if cls is None:
        raise ConfigurationError(f"{root.family}: type={name!r} is not known; use one of {spoken(known)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    values = {key: value for key, value in settings.items() if key != "type"}
    if unknown := sorted(set(values) - set(fields)):
        raise ConfigurationError(f"{name}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(fields))}")
    needed = [key for key, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    if lacking := [key for key in needed if key not in values]:
        raise ConfigurationError(f"{name}: the field {lacking[0]!r} is missing; give it")
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
        raise ConfigurationError(f"type={name!r} is a {type(made).__name__}, but a {root.__name__} is needed")
    return made


def configured_classes() -> list[type[Configured]]:
    """Return the classes of all families that are loaded."""
    return [cls for family in _FAMILIES.values() for cls in family.values()]


def find(known: Mapping[str, type[Configured]], name: object) -> type[Configured] | None:
    """Return the class of this name, written with hyphens or underscores; None if none has it."""
    if not isinstance(name, str):
        return None
    wanted = _plain_name(name)
    return next((cls for key, cls in known.items() if _plain_name(key) == wanted), None)


def spoken(known: Iterable[str]) -> str:
    """Return the names as people read and write them, in one line."""
    return ", ".join(sorted(name.replace("_", "-") for name in known))


def _plain_name(name: str) -> str:
    return name.strip().replace("-", "_")


def registered(family: str) -> Mapping[str, type[Configured]]:
    """Return the classes of a family by name, those of other packages' entry points included."""
    import importlib.metadata  # It is slow to import, and rarely needed.

    for entry in importlib.metadata.entry_points(group=f"tts_plugins.{family}"):
        if entry.name not in _FAMILIES.setdefault(family, {}):
            _FAMILIES[family][entry.name] = _loaded(entry, family)
    return _FAMILIES.get(family, {})


def _loaded(entry: EntryPoint, family: str) -> type[Configured]:
    where = f"entry point {entry.name!r} of tts_plugins.{family} ({entry.value})"
    try:
        found: Any = entry.load()
    except Exception as error:
        raise ConfigurationError(f"{where} does not load: {error}; fix or uninstall that package") from error
    fits = isinstance(found, type) and issubclass(found, Configured) and dataclasses.is_dataclass(found)
    if not fits:
        raise ConfigurationError(f"{where} is {found!r}, not a dataclass that derives from the family's base class")
    loaded: type[Configured] = found
    return loaded


_PRICE = 1e12


def check_count(owner: str, name: str, value: object, *, least: int = 1) -> None:
    """Raise unless `value` is a whole number of at least `least`; name the field, the value and what to do."""
    if not is_whole(value, least):
        raise ConfigurationError(f"{owner}: {name}={value!r:.80} must be a whole number of at least {least}")
    if value > sys.maxsize:
        raise ConfigurationError(f"{owner}: {name} has {value.bit_length()} bits, too many; give at most {sys.maxsize}")


def check_price(owner: str, price: tuple[float, float]) -> None:
    """Raise unless `price` is two prices that an account can add up."""
    pair = isinstance(price, Sequence) and not isinstance(price, str) and len(price) == 2
    if not pair or not all(isinstance(p, int | float) and 0 <= p < _PRICE for p in price):
        raise ConfigurationError(
            f"{owner}: price={price!r} must be two prices, US dollars per million prompt and completion tokens, each "
            f"at least 0 and below {_PRICE:g}"
        )


def check_straggler(owner: str, value: object) -> None:
    """Raise unless `value` is None or a finite number of at least 1."""
    if value is None:
        return
    if not is_number(value) or not 1 <= value < math.inf:
        raise ConfigurationError(
            f"{owner}: straggler={value!r} must be a finite number of at least 1, times the median child's time; None "
            "waits for all"
        )


def check_share(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is between 0 and 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigurationError(f"{owner}: {name}={value!r} must be a number from 0 to 1")


_ROUNDING = 1e-9  # how far sums, means and softmaxes of good scores stray


def in_unit(value: float) -> float | None:
    """Return `value` as a score in [0, 1]; None if it lies outside. An excess that is rounding error is cut off."""
    if 0 <= value <= 1:
        return float(value)
    return float(round(value)) if -_ROUNDING <= value <= 1 + _ROUNDING else None


def check_seconds(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is a number of seconds."""
    if not is_number(value) or not 0 < value < 86_400:
        raise ConfigurationError(f"{owner}: {name}={value!r} must be a number of seconds above 0, and below a day")


def check_flag(owner: str, name: str, value: object) -> None:
    """Raise unless `value` is True or False: the text "false" would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{owner}: {name}={value!r} must be true or false")


def _root_of(name: object, where: str) -> type[Configured]:
    for look in (_FAMILIES.get, registered):  # those of other packages only if it is not one of ours
        for family in list(_FAMILIES):
            known = look(family) or {}
            if (found := find(known, name)) is not None:
                return found
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


def secret_of(field: str, variable: object, fix: str = "; export it first") -> str:
    """Return what an environment variable holds.

    Args:
        field: for the error, with the sign that follows it: "api_key_env=".
        variable: its name. One that looks like a key is not shown.

    Raises:
        ConfigurationError: it is not set.
    """
    if value := os.environ.get(str(variable)):
        return value
    named = isinstance(variable, str) and re.fullmatch("[A-Z_][A-Z0-9_]{0,63}", variable)
    shown = variable if named else "… (not shown: give a variable's name, such as OPENAI_API_KEY, never the key)"
    raise ConfigurationError(f"{field}{shown}: that environment variable is not set{fix}")
