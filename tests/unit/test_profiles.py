"""Profiles: where they are read from, what overrides what, and what is said where they are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, SelfConsistency, solve, solve_many, solve_sync
from tts_plugins.cli import main
from tts_plugins.errors import ConfigurationError
from tts_plugins.profiles import Profile, load_profile, profile_names
from tts_plugins.stopping import Threshold
from tts_plugins.testing import ScriptedModel

ROOT = Path(__file__).parents[2]

CAREFUL = """
[tool.tts-plugins.profiles.careful]
strategy = { type = "best_of_n", n = 16, stop = { type = "threshold", score = 0.9 } }
verifier = "tests_profiles_functions:check"
budget = { tokens = 20000, seconds = 30 }
seed = 3

[tool.tts-plugins.profiles.Cheap]
policy = "self_consistency"
"""


def check(problem: Any, candidate: Any) -> bool:
    return bool(candidate.text == "4")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import sys
    import types

    module = types.ModuleType("tests_profiles_functions")
    module.check = check  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "pyproject.toml").write_text(CAREFUL)
    return tmp_path


def load(folder: Path, name: str = "careful", **environ: str) -> Profile:
    return load_profile(name, directory=folder, environ=environ)


def test_a_whole_profile(folder: Path) -> None:
    profile = load(folder)
    assert profile.strategy == BestOfN(n=16, stop=Threshold(0.9))
    assert profile.budget == Budget(tokens=20000, seconds=30) and profile.seed == 3
    model = ScriptedModel(["5", "4"], prompt_tokens=1, completion_tokens=1, max_tokens=4)
    assert solve_sync("2 + 2?", model=model, **profile.settings()).text == "4"


def test_an_unknown_name_gets_the_nearest_and_the_file_that_was_read(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'careful'\? known are Cheap, careful") as caught:
        load(folder, "carefull")
    fix = f"Write [tool.tts-plugins.profiles.carefull] into {folder / 'pyproject.toml'}"
    assert str(caught.value).endswith(fix)
    (folder / "tts-plugins.toml").write_text('[profiles.quick]\nstrategy = "self-consistency"\n')
    with pytest.raises(ConfigurationError) as caught:
        load(folder, "zzz")
    assert "did you mean" not in str(caught.value)
    assert str(caught.value).endswith(f"Write [profiles.zzz] into {folder / 'tts-plugins.toml'}")


def test_a_policy_is_a_strategy_and_what_is_not_said_is_none(folder: Path) -> None:
    assert load(folder, "Cheap") == Profile(name="Cheap", strategy=SelfConsistency())
    assert profile_names(directory=folder, environ={}) == ["Cheap", "careful"]


def test_files_are_found_above(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    assert load(folder / "a" / "b").seed == 3


def test_the_nearer_and_the_later_override_field_by_field(folder: Path) -> None:
    (folder / "tts-plugins.toml").write_text("[profiles.careful]\nseed = 4\nstrategy = { n = 8 }\n")
    profile = load(folder)
    assert profile.seed == 4 and profile.strategy == BestOfN(n=8, stop=Threshold(0.9))
    profile = load(
        folder,
        TTS_PLUGINS_PROFILES__CAREFUL__STRATEGY__N="2",
        TTS_PLUGINS_PROFILES__CAREFUL__BUDGET__USD="0.5",
        TTS_PLUGINS_PROFILES__CHEAP__STRATEGY="best-of-n",
        TTS_PLUGINS_OTHER="x",
    )
    assert profile.strategy == BestOfN(n=2, stop=Threshold(0.9))
    assert profile.budget == Budget(tokens=20000, seconds=30, usd=0.5)


def test_from_the_environment_alone(tmp_path: Path) -> None:
    profile = load(tmp_path, "fast", TTS_PLUGINS_PROFILES__FAST__STRATEGY='{"type": "best_of_n", "n": 3}')
    assert profile.strategy == BestOfN(n=3)


def test_verifiers_of_this_package_and_their_arguments(tmp_path: Path) -> None:
    text = '[profiles.a]\nverifier = "AnswerAgreement"\n[profiles.b.verifier]\ntype = "CallableVerifier"\nnone = 1\n'
    (tmp_path / "tts-plugins.toml").write_text(text)
    assert type(load(tmp_path, "a").verifier).__name__ == "AnswerAgreement"
    with pytest.raises(ConfigurationError, match="profile b: verifier CallableVerifier"):
        load(tmp_path, "b")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("stategy = 3", "unknown field 'stategy'"),
        ("strategy = 3", "strategy=3 must be a name or a table"),
        ('strategy = "nope"', "type='nope' is not known"),
        ('strategy = { type = "best_of_n", m = 3 }', "unknown field 'm'"),
        ('strategy = { type = "best_of_n", n = 0 }', "n=0"),
        ('strategy = "best_of_n"\npolicy = "best_of_n"', "both given"),
        ("budget = 3", "budget=3 must be a table"),
        ("budget = { dollars = 3 }", "unknown field 'dollars'"),
        ("budget = { calls = -3 }", "calls=-3"),
        ('seed = "x"', "seed='x'"),
        ('verifier = "nope"', "verifier='nope' is not known"),
        ('verifier = "nope:nope"', "cannot be imported"),
        ('verifier = ":"', 'does not name a function; write "package.module:name"'),
        ('verifier = ".x:y"', "does not name a function"),
        ('verifier = "cmath:"', "does not name a function"),
        ('verifier = "a b:c"', "does not name a function"),
        ('verifier = "broken_module:check"', "cannot be imported: ZeroDivisionError"),
        ('verifier = "cmath:pi"', "verifier cmath:pi: verifier=3.14"),
        ("verifier = 3", "verifier=3 must be"),
    ],
)
def test_errors_name_the_file_the_profile_and_the_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str
) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tts-plugins.toml").write_text(f"[profiles.p]\n{line}\n")
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(tmp_path, "p")
    assert str(tmp_path / "tts-plugins.toml") in str(caught.value) and "profile p" in str(caught.value)


def test_errors_of_files_and_variables(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there are none.*pyproject\.toml"):
        load(tmp_path, "p")
    with pytest.raises(ConfigurationError, match="names no field"):
        load(tmp_path, "p", TTS_PLUGINS_PROFILES__P="3")
    with pytest.raises(ConfigurationError, match="set one"):
        load(tmp_path, "p", TTS_PLUGINS_PROFILES__P__SEED="3", TTS_PLUGINS_PROFILES__P__SEED__X="3")
    with pytest.raises(ConfigurationError, match="the environment: profile p: seed"):
        load(tmp_path, "p", TTS_PLUGINS_PROFILES__P__SEED="x")
    (tmp_path / "tts-plugins.toml").write_text("[profiles\n")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load(tmp_path, "p")
    (tmp_path / "tts-plugins.toml").write_text("profiles = 3\n")
    with pytest.raises(ConfigurationError, match="must be a table of profiles"):
        load(tmp_path, "p")
    (tmp_path / "tts-plugins.toml").write_text("[profiles]\np = 3\n")
    with pytest.raises(ConfigurationError, match="must be a table of settings"):
        load(tmp_path, "p")


def test_values_nested_too_deeply_and_a_byte_order_mark(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "tts-plugins.toml").write_text(f"[profiles.p]\nseed = {deep}\n")
    with pytest.raises(ConfigurationError, match=r"tts-plugins\.toml: its values are nested too deeply"):
        load(tmp_path, "p")
    (tmp_path / "tts-plugins.toml").write_bytes(b"\xef\xbb\xbf[profiles.p]\nseed = 1\n")
    with pytest.raises(ConfigurationError, match=r"tts-plugins\.toml: it begins with a byte-order mark.*without BOM"):
        load(tmp_path, "p")
    (tmp_path / "tts-plugins.toml").write_bytes(b"[profiles.p]\nseed = '\xff'\n")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        load(tmp_path, "p")
    (tmp_path / "tts-plugins.toml").unlink()
    with pytest.raises(ConfigurationError, match="SEED is nested too deeply"):
        load(tmp_path, "p", TTS_PLUGINS_PROFILES__P__SEED=deep)
    with pytest.raises(ConfigurationError, match=r"STRATEGY__A.*: its values are nested too deeply"):
        load(tmp_path, "p", **{"TTS_PLUGINS_PROFILES__P__STRATEGY" + "__A" * 200: "1"})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "[profiles.p]\nseed = " + "9" * 5000,
            r"not valid TOML: Exceeds the limit.*correct that",
        ),
        ("[profiles.p]\nseed = 2026-02-30", "not valid TOML: .*correct that"),
        ("[profiles.p.strategy" + ".a" * 5000 + "]\nx = 1", "its values are nested too deeply"),
        ("[profiles.p]\nbudget = " + "{a=" * 150 + "1" + "}" * 150, "its values are nested too deeply"),
        ("[profiles.p]\nstrategy = {type = 'self-consistency', n = 1" + "0" * 30 + "}", "n has 100 bits, too many"),
        ("[profiles.p]\nverifier = 'sql:~nobody-of-this-name/x'", "~nobody-of-this-name"),
        ('[profiles.p]\nverifier = "sql:a\\u0000b"', "is not a file here"),
    ],
    ids=["digits", "date", "keys", "tables", "count", "home", "NUL"],
)
def test_what_a_reader_of_toml_lets_through_is_refused_by_name(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "tts-plugins.toml").write_text(written)
    with pytest.raises(ConfigurationError, match=r"(?s)tts-plugins\.toml.*" + said):
        load(tmp_path, "p")


class TestInSolve:
    TOML = """
        [profiles.three]
        strategy = { type = "self-consistency", n = 3 }
        budget = { calls = 5 }
        seed = 7
        abstain_below = 0.1
        [profiles.two]
        strategy = { type = "self-consistency", n = 2 }
    """

    @pytest.fixture(autouse=True)
    def _there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "tts-plugins.toml").write_text(self.TOML)
        (tmp_path / "inner").mkdir()
        monkeypatch.chdir(tmp_path / "inner")  # found from a folder below

    async def test_it_gives_what_is_not_set(self) -> None:
        result = await solve("?", model=ScriptedModel(["a"]), profile="three")
        assert result.usage.calls == 3 and result.seed == 7
        own = await solve("?", model=ScriptedModel(["a"]), profile="three", strategy=SelfConsistency(n=1), seed=1)
        assert own.usage.calls == 1 and own.seed == 1
        many = await solve_many(["?", "!"], model=ScriptedModel(["a"]), profile="three")
        again = await solve_many(["?", "!"], model=ScriptedModel(["a"]), profile="three")
        assert [r.seed for r in many] == [r.seed for r in again] and many[0].seed != many[1].seed

    async def test_its_budget_holds(self) -> None:
        result = await solve("?", model=ScriptedModel(["a"]), profile="three", strategy=SelfConsistency(n=9))
        assert result.usage.calls == 5 and result.stopped == "budget"

    async def test_the_environment_names_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TTS_PLUGINS_PROFILE", "two")
        assert (await solve("?", model=ScriptedModel(["a"]))).usage.calls == 2
        assert (await solve("?", model=ScriptedModel(["a"]), profile="three")).usage.calls == 3
        assert (await solve("?", model=ScriptedModel(["a"]), profile=None)).usage.calls == 8
        monkeypatch.setenv("TTS_PLUGINS_PROFILE", "four")
        with pytest.raises(ConfigurationError, match="profile='four' is not known"):
            await solve("?", model=ScriptedModel(["a"]))

    def test_every_adapter_takes_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from tts_plugins.adapters import SearchSettings

        monkeypatch.setenv("TTS_PLUGINS_PROFILE", "two")
        assert SearchSettings.of("scale", {}).strategy == SelfConsistency(n=2)
        given = SearchSettings.of("scale", {"profile": "three"})
        assert given.strategy == SelfConsistency(n=3) and given.arguments()["profile"] is None
        assert given.changed("scale", {"seed": 2}).strategy == SelfConsistency(n=3)

    def test_it_is_made_once(self) -> None:
        assert load_profile("two") is load_profile("two")


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    key = "sk-secret-0123456789"
    for line in (
        f'verifier = {{ model = {{ api_key = "{key}" }} }}',
        f'verifier = {{ type = "rubric", rubric = "Good?", model = {{ model = "m", api_key = "{key}" }} }}',
        f'verifier = {{ type = "rubric", rubric = "Good?", model = {{ model = "m", api_key_env = "{key}" }} }}',
        f'verifier = {{ type = "rubric", rubric = "Good?", model = {{ model = "m", nope = "{key}" }} }}',
        f'verifier = {{ type = "rubric", rubric = "Good?", model = {{ type = "openai", key = "{key}" }} }}',
    ):
        (tmp_path / "tts-plugins.toml").write_text(f"[profiles.p]\n{line}\n")
        with pytest.raises(ConfigurationError) as caught:
            load(tmp_path, "p")
        seen: BaseException | None = caught.value
        while seen is not None:
            assert key not in str(seen)
            seen = seen.__cause__


@pytest.mark.parametrize("verifier", ['"json-schema:order.json"', '{ type = "json-schema", schema = "order.json" }'])
def test_a_verifiers_file_stands_beside_the_profiles_and_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verifier: str
) -> None:
    (tmp_path / "tts-plugins.toml").write_text(f"[profiles.p]\nverifier = {verifier}\n")
    (tmp_path / "order.json").write_text('{"type": "object"}')
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    first = load_profile("p").verifier
    assert first is load_profile("p").verifier
    (tmp_path / "order.json").write_text('{"type": "array", "items": {"type": "integer"}}')
    second: Any = load_profile("p").verifier
    assert second is not first and second.schema["type"] == "array"
    (tmp_path / "order.json").unlink()
    with pytest.raises(ConfigurationError, match=r"'order\.json' is not a file here"):
        load_profile("p")


async def test_a_verifier_that_solves_does_not_get_the_environments_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nested_check.py").write_text(
        "from tts_plugins import solve, SelfConsistency\n"
        "from tts_plugins.testing import ScriptedModel\n"
        "async def check(problem, candidate):\n"
        "    model = ScriptedModel(['Answer: 4'])\n"
        "    inner = await solve('Right?', model=model, strategy=SelfConsistency(n=1))\n"
        "    return inner.score is None\n"
    )
    (tmp_path / "tts-plugins.toml").write_text(
        '[profiles.p]\nverifier = "nested_check:check"\nstrategy = "best-of-n"\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTS_PLUGINS_PROFILE", "p")
    result = await solve("2 + 2?", model=ScriptedModel(["Answer: 4"]))
    assert result.score == 1 and result.usage.calls == 16


def test_the_command_prints_one_json_object_where_a_profile_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tts-plugins.toml").write_text('[profiles.good]\nseed = 1\n[profiles.bad]\nseed = "x"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["profiles", "--json"]) == 2
    said = json.loads(capsys.readouterr().out)
    assert "seed='x'" in said["bad"]["error"] and said["good"]["seed"] == "1"
    assert main(["profiles", "--json", "--nope"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2


@pytest.mark.parametrize("name", [5, ["x"], float("nan"), b"x"])
def test_a_profile_is_named_by_a_text(name: Any) -> None:
    for ask in (load_profile, lambda given: solve_sync("Q?", model=ScriptedModel(["4"]), profile=given)):
        with pytest.raises(ConfigurationError, match=r"profile=.* must be the name of a profile"):
            ask(name)


@pytest.mark.parametrize("name", ["\x1b[31m", "x" * 5_000, "a.b]"])
def test_a_hostile_name_is_not_repeated_as_it_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, name)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_models_type_that_is_no_text(tmp_path: Path) -> None:
    line = 'verifier = { type = "rubric", rubric = "Good?", model = { type = ["a"] } }'
    (tmp_path / "tts-plugins.toml").write_text(f"[profiles.p]\n{line}\n")
    with pytest.raises(ConfigurationError, match="is not known; use one of openai"):
        load(tmp_path, "p")


def test_a_command_finds_the_module_of_a_profile_in_the_working_directory(tmp_path: Path) -> None:
    """Regression: a console script does not have the working directory on its path, and `python -m` does."""
    (tmp_path / "my_checks_here.py").write_text("def is_valid(problem, candidate):\n    return True\n")
    (tmp_path / "tts-plugins.toml").write_text('[profiles.careful]\nverifier = "my_checks_here:is_valid"\n')
    code = f"import sys; sys.path[0] = {str(ROOT)!r}; from tts_plugins.cli import main; main(['profiles', '--json'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "careful" in run.stdout, run.stderr
