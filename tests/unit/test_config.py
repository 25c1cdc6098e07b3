from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

import tts_plugins._internal.config as config
from tts_plugins._internal.config import Configured, build, registered
from tts_plugins.errors import ConfigurationError
from tts_plugins.stopping import (
    AllOf,
    AnyOf,
    BetaConfident,
    FadingLead,
    Rule,
    Threshold,
    Unanimous,
    VoteDecided,
    VoteLead,
)
from tts_plugins.strategies import BestOfN, SelfConsistency
from tts_plugins.strategies._base import BaseStrategy

EXAMPLES: dict[str, dict[str, list[Configured]]] = {
    "stopping": {
        "threshold": [Threshold(0.9)],
        "vote_decided": [VoteDecided(), VoteDecided(weighted=True)],
        "vote_lead": [VoteLead(3), VoteLead(2, weighted=True)],
        "fading_lead": [FadingLead(3), FadingLead(4, 2), FadingLead(1.5, weighted=True)],
        "beta_confident": [BetaConfident(), BetaConfident(0.9)],
        "unanimous": [Unanimous(), Unanimous(7)],
        "any_of": [Threshold(1) | (VoteLead(2) & Unanimous(3))],
        "all_of": [AllOf(rules=(AnyOf(rules=(Threshold(0.5),)), VoteDecided()))],
    },
    "strategies": {
        "best_of_n": [BestOfN(), BestOfN(n=3, select="weighted", stop=Threshold(0.9) | VoteLead(2), wave=2)],
        "self_consistency": [
            SelfConsistency(n=4, stop=VoteDecided(), wave=1),
            SelfConsistency(),
            SelfConsistency(n=8, stop="balanced"),
        ],
    },
}
ROOTS = {"stopping": Rule, "strategies": BaseStrategy}


@pytest.mark.parametrize("family", list(EXAMPLES))
def test_every_registered_class_survives_json(family: str) -> None:
    ours = {name for name, cls in registered(family).items() if cls.__module__.startswith("tts_plugins.")}
    assert set(EXAMPLES[family]) <= ours
    for name in sorted(ours):
        cls = registered(family)[name]
        needs = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
        if needs and name not in EXAMPLES[family]:
            # Of the rows above; which of them are registered depends on what was imported. Tested with their modules.
            assert cls.__module__.startswith("tts_plugins.policies"), f"give an example of {name} in EXAMPLES"
            continue
        examples = EXAMPLES[family].get(name) or [cls()]
        for example in examples:
            settings = json.loads(json.dumps(example.to_dict(), allow_nan=False))
            again = build(ROOTS[family], settings)
            assert settings["type"] == name and again == example and hash(again) == hash(example)
            assert again.to_dict() == example.to_dict() and type(example).from_dict(settings) == example


def test_the_type_may_be_left_out_where_the_class_says_it() -> None:
    assert BestOfN.from_dict({"n": 3}) == BestOfN(n=3)
    with pytest.raises(ConfigurationError, match="type=None is not known"):
        Rule.from_dict({"score": 1})


@pytest.mark.parametrize(
    ("root", "settings", "words"),
    [
        (BaseStrategy, {"type": "best_of"}, "type='best_of' is not known; use one of .*best-of-n, "),
        (BaseStrategy, {"type": ["best_of_n"]}, "is not known"),
        (BaseStrategy, {"type": "best_of_n", "N": 3}, "best_of_n: unknown field 'N'; the fields are n, select"),
        (BaseStrategy, {"type": "best_of_n", "n": 0}, "n=0 must be a whole number of at least 1"),
        (BaseStrategy, {"type": "best_of_n", "n": "8"}, "n='8'"),
        (BaseStrategy, {"type": "best_of_n", "stop": {"type": "treshold"}}, "best_of_n.stop: type='treshold'"),
        (BaseStrategy, {"type": "best_of_n", "stop": {"type": ["x"]}}, r"best_of_n.stop: type=\['x'\]"),
        (BaseStrategy, {"type": "best_of_n", "stop": {"type": "self_consistency"}}, "stop=.* is not a stop rule"),
        (BaseStrategy, {"type": "best_of_n", "stop": {"score": 0.9}}, "stop=.* is not a stop rule"),
        (SelfConsistency, {"type": "best_of_n"}, "a BestOfN, but a SelfConsistency is needed"),
        (Rule, {"type": "threshold"}, "threshold: .*score"),
        (Rule, {"type": "any_of", "rules": [{"type": "threshold", "score": 2}]}, "score=2 must be"),
        (Rule, {"type": "any_of", "rules": [0.9]}, "rules=0.9 is not a stop rule"),
        (Rule, None, "None is not a mapping"),
        (Rule, ["threshold"], "is not a mapping"),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_field_and_the_value(root: Any, settings: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        root.from_dict(settings)


@pytest.mark.parametrize("stop", ["vote_lead", "vote-lead"])
@pytest.mark.parametrize("name", ["best_of_n", "best-of-n"])
def test_a_name_may_have_hyphens(name: str, stop: str) -> None:
    made = BaseStrategy.from_dict({"type": name, "stop": {"type": stop, "k": 2}})
    assert made == BestOfN(stop=VoteLead(2)) and made.to_dict()["type"] == "best_of_n"


def test_what_has_no_form_in_json_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"BestOfN\.n=.* has no form in JSON"):
        made = BestOfN()
        object.__setattr__(made, "n", {1, 2})
        made.to_dict()


def test_names() -> None:
    assert [config._snake(name) for name in ("BestOfN", "DVTS", "VoteLead", "HTTPRule", "Best2Of")] == [
        "best_of_n", "dvts", "vote_lead", "http_rule", "best2_of",
    ]  # fmt: skip


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Any]:
    """A distribution of somebody else on sys.path, with the entry points that it is given."""
    before = {family: dict(known) for family, known in config._FAMILIES.items()}

    def install(family: str, entries: str, source: str) -> None:
        (tmp_path / "their_rules.py").write_text(source)
        info = tmp_path / "their_rules-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[tts_plugins.{family}]\n{entries}\n")

    sys.path.insert(0, str(tmp_path))
    yield install
    sys.path.remove(str(tmp_path))
    sys.modules.pop("their_rules", None)
    config._FAMILIES.clear()
    config._FAMILIES.update(before)


SOURCE = """
from dataclasses import dataclass
from tts_plugins.stopping import FadingLead, Rule

@dataclass(frozen=True)
class AfterTea(Rule):
    cups: int = 1
    def __call__(self, seen, left):
        return len(seen) >= self.cups

not_a_class = 5
class Plain(Rule):
    def __call__(self, seen, left):
        return False
"""


def test_a_rule_of_another_package_is_found_by_its_entry_point(plugin: Any) -> None:
    plugin("stopping", "after_tea = their_rules:AfterTea", SOURCE)
    assert "their_rules" not in sys.modules
    made = BestOfN.from_dict({"stop": {"type": "after_tea", "cups": 2}})
    assert made.stop is not None and type(made.stop).__name__ == "AfterTea"
    assert BestOfN.from_dict(made.to_dict()) == made and "after_tea" in registered("stopping")


def test_an_entry_point_that_does_not_load_is_named_and_ours_still_work(plugin: Any) -> None:
    """Regression: one broken plugin made every configuration fail with a bare ImportError."""
    plugin("stopping", "broken = their_rules:Missing", SOURCE)
    assert BestOfN.from_dict({"stop": {"type": "threshold", "score": 0.5}}).stop == Threshold(0.5)
    with pytest.raises(ConfigurationError, match=r"entry point 'broken' of tts_plugins.stopping \(their_rules:Missing"):
        Rule.from_dict({"type": "after_coffee"})


@pytest.mark.parametrize("name", ["not_a_class", "Plain", "dataclass"])
def test_an_entry_point_has_to_be_a_configured_dataclass(plugin: Any, name: str) -> None:
    plugin("stopping", f"tea = their_rules:{name}", SOURCE)
    with pytest.raises(ConfigurationError, match="not a dataclass that derives"):
        registered("stopping")
