"""The command line as a user meets it: what goes to stdout, what to stderr, and the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("aiohttp")

from rich.console import Console

from tests.waiting import block_until
from tts_plugins import BestOfN, ComputeOptimal, Ledger, SelfConsistency, __version__
from tts_plugins.cli import main
from tts_plugins.cli._arguments import strategy as typed
from tts_plugins.cli._arguments.verifier import verifier_of
from tts_plugins.cli._display.demo_view import DemoView
from tts_plugins.cli._display.interrupt import watch
from tts_plugins.cli._display.progress import Seen
from tts_plugins.cli._display.solve_view import SolveView
from tts_plugins.engine.dry_run import brief
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import Ladder, Plan, Rung
from tts_plugins.stopping import AnyOf, Threshold, VoteDecided, VoteLead
from tts_plugins.testing.loopback import Fault, LoopbackServer
from tts_plugins.testing.synthetic import synthetic_pool

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    replies = ["The answer is 391.", "The answer is 381.", "The answer is 391."]
    with LoopbackServer(reply=replies, indexing="arrival") as running:
        yield running


@pytest.fixture
def ask(
    server: LoopbackServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*options: str, prompt: str = "What is 17 * 23?") -> tuple[int, str, str]:
        code = main(["solve", prompt, "--model", "loopback", "--base-url", server.base_url, *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


CHECK = """
def check(problem, candidate):
    return (1.0, "right") if "391" in candidate.text else (0.2, "not 391")
"""


SLOW = """
import asyncio, pathlib

class Slow:
    name = "slow"

    async def bound(self, problem, tokens):
        from tts_plugins.budget import FREE
        return FREE

    async def score_set(self, run, candidates):
        pathlib.Path(__file__).with_suffix(".begun").touch()
        await asyncio.sleep(600)

slow = Slow()
"""


class TestSolve:
    def test_only_the_answer_is_on_stdout(self, ask: Any) -> None:
        code, out, err = ask("--n", "3")
        assert (code, out) == (0, "The answer is 391.\n")
        assert "3 candidates, 3 calls" in err and "cost unknown" in err

    def test_quiet_says_nothing_more(self, ask: Any) -> None:
        assert ask("--n", "3", "--quiet") == (0, "The answer is 391.\n", "")

    def test_json_is_one_object_and_complete(self, ask: Any) -> None:
        code, out, _ = ask("--n", "3", "--json", "--seed", "7", "--price", "1,2", "--trace")
        found = json.loads(out)
        assert code == 0
        assert (found["text"], found["output"], found["answer"]) == ("The answer is 391.",) * 2 + ("391",)
        assert (found["score"], found["stopped"], found["seed"]) == (None, "complete", 7)
        assert found["usage"]["calls"] == 3 and found["usage"]["by_role"]["model"]["calls"] == 3
        assert found["usage"]["usd"] > 0
        assert [c["index"] for c in found["candidates"]] == [0, 1, 2]
        assert set(found["candidates"][0]) == {"id", "index", "text", "answer", "score", "feedback", "truncated"}

    def test_a_function_of_the_users_chooses(self, ask: Any, tmp_path: Path) -> None:
        check = write(tmp_path / "check.py", CHECK)
        code, out, _ = ask("--n", "3", "--verifier", f"python:{check}:check", "--json")
        found = json.loads(out)
        assert code == 0 and found["score"] == 1.0 and found["answer"] == "391"
        assert {c["feedback"] for c in found["candidates"]} == {"right", "not 391"}

    def test_a_stop_rule_saves_calls(self, ask: Any, server: LoopbackServer, tmp_path: Path) -> None:
        check = write(tmp_path / "check.py", "def check(problem, candidate):\n    return 1.0\n")
        code, out, _ = ask("--n", "8", "--verifier", f"python:{check}:check", "--stop", "threshold:0.9", "--json")
        assert code == 0 and json.loads(out)["stopped"] == "stop_rule"
        assert server.counts.choices == 1

    def test_a_json_schema_scores(self, ask: Any, server: LoopbackServer, tmp_path: Path) -> None:
        server.configure(reply=['{"item": "lamp"}', '{"item": "lamp", "quantity": 3}', "no"])
        schema = write(tmp_path / "s.json", json.dumps({"type": "object", "required": ["item", "quantity"]}))
        code, out, _ = ask("--n", "3", "--verifier", f"json-schema:{schema}")
        assert code == 0 and json.loads(out) == {"item": "lamp", "quantity": 3}

    def test_the_prompt_may_come_from_stdin(self, ask: Any, server: LoopbackServer, monkeypatch: Any) -> None:
        import io

        monkeypatch.setattr("sys.stdin", io.StringIO("From the pipe?\n"))
        assert ask("--n", "1", prompt="-")[0] == 0
        assert server.requests[0].body["messages"][-1]["content"] == "From the pipe?\n"

    def test_options_of_the_model_are_sent(self, ask: Any, server: LoopbackServer) -> None:
        assert ask("--n", "1", "--temperature", "0.3", "--max-tokens", "9", "--system", "Be brief.")[0] == 0
        body = server.requests[0].body
        assert (body["temperature"], body["max_tokens"]) == (0.3, 9)
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}

    def test_the_same_seed_sends_the_same_requests(self, ask: Any, server: LoopbackServer) -> None:
        for _ in range(2):
            assert ask("--n", "2", "--seed", "5")[0] == 0
        first, second = (r.body["seed"] for r in server.requests)
        assert first == second

    def test_a_page_is_written_whole(self, ask: Any, tmp_path: Path) -> None:
        page = tmp_path / "trace.html"
        code, _, err = ask("--n", "2", "--html", str(page), "--trace")
        assert code == 0 and str(page) in err
        assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
        assert [p.name for p in tmp_path.iterdir()] == ["trace.html"]

    def test_a_link_stays_one(self, ask: Any, tmp_path: Path) -> None:
        (tmp_path / "latest.html").symlink_to(tmp_path / "real.html")
        assert ask("--n", "2", "--html", str(tmp_path / "latest.html"))[0] == 0
        assert (tmp_path / "latest.html").is_symlink()
        assert (tmp_path / "real.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")

    def test_the_tree_follows_the_answer(self, ask: Any) -> None:
        _, out, _ = ask("--n", "2", "--trace")
        assert out.startswith("The answer is 391.\n") and "SelfConsistency" in out

    def test_control_characters_of_a_model_reach_a_pipe_unchanged(self, ask: Any, server: LoopbackServer) -> None:
        server.configure(reply="a\x1b[31mb")
        assert ask("--n", "1", "-q") == (0, "a\x1b[31mb\n", "")


posix = pytest.mark.skipif(not Path("/proc/self").exists(), reason="devices and /proc")


class TestErrors:
    """One line on stderr, nothing on stdout, and a code."""

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (["--n", "0"], 2, "tts-plugins: --n 0 must be"),
            (["--stop", "never"], 2, "use one of beta-confident"),
            (["--stop", "threshold"], 2, "threshold:VALUE"),
            (["--stop", "threshold:2"], 2, "score=2"),
            (["--strategy", "magic"], 2, "best-of-n"),
            (["--strategy", "best-of-n"], 2, "--verifier"),
            (["--select", "best"], 2, "no setting 'select'"),
            (["--set", "wave"], 2, "FIELD=VALUE"),
            (["--verifier", "magic"], 2, "json-schema"),
            (["--verifier", "json-schema:/nowhere.json"], 2, "is not a file here"),
            (["--verifier", "python:no_such_module:f"], 2, "ModuleNotFoundError"),
            (["--verifier", "python:json:nothing"], 2, "has no 'nothing'"),
            (["--verifier", "python:json:JSONDecoder"], 2, "pass one of tts_plugins.verifiers, a function"),
            (["--verifier", "python:os:getcwd"], 2, "getcwd(): it must take (problem, candidate)"),
            (["--price", "1"], 2, "IN,OUT"),
            (["--budget-calls", "0"], 2, "tts-plugins: --budget-calls 0 must be above 0"),
            (["--budget-usd", "1"], 2, "--price IN,OUT"),
            (["--api-key-env", "NO_SUCH_VARIABLE"], 2, "not set"),
            (["--html", "/no/such/folder/t.html"], 2, "does not exist"),
            (["--html", "/"], 2, "that is a folder"),
            pytest.param(["--html", "/dev/null"], 2, "a device or a pipe", marks=posix),
            pytest.param(["--html", "/proc/t.html"], 2, "cannot be written", marks=posix),
            (["--temperature", "3"], 2, "tts-plugins: --temperature 3.0 must be from 0 to 2"),
            (["--max-tokens", "0"], 2, "tts-plugins: --max-tokens 0 must be"),
            (["--attempts", "0"], 2, "tts-plugins: --attempts 0 must be"),
            (["--frobnicate"], 2, "tts-plugins solve --help"),
            (
                ["--budget-tokens", "10"],
                3,
                "the budget (tokens=10) is too small for a single call, which may take 1 call, ",
            ),
        ],
    )
    def test_a_wrong_option(self, ask: Any, server: LoopbackServer, options: list[str], code: int, said: str) -> None:
        got, out, err = ask(*options)
        assert (got, out) == (code, "")
        assert said in err and err.count("\n") == 1 and "Traceback" not in err
        assert server.counts.choices == 0

    def test_an_empty_prompt(self, ask: Any) -> None:
        code, out, err = ask(prompt="  ")
        assert (code, out) == (2, "") and "empty" in err

    @pytest.mark.parametrize(
        ("status", "said", "kind"), [(401, "--api-key-env", 4), (404, "doctor", 5), (400, "refused", 5)]
    )
    def test_a_server_that_refuses(self, ask: Any, server: LoopbackServer, status: int, said: str, kind: int) -> None:
        server.configure(faults=Fault.status(status))
        code, out, err = ask("--n", "2", "--attempts", "1")
        assert (code, out) == (kind, "") and said in err and err.count("\n") == 1

    def test_json_has_the_error_too(self, ask: Any, server: LoopbackServer, capsys: Any) -> None:
        server.configure(faults=Fault.status(401))
        code, out, err = ask("--n", "2", "--attempts", "1", "--json")
        said = json.loads(out)["error"]
        assert code == said["exit_code"] == 4 and said["type"] == "AuthenticationFailed" and said["message"] in err
        assert main(["solve", "x", "--json", "--n", "two"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["type"] == "UsageError"

    def test_debug_shows_where(self, ask: Any) -> None:
        with pytest.raises(ConfigurationError):
            ask("--n", "0", "--debug")

    def test_no_time(self, ask: Any, server: LoopbackServer) -> None:
        server.configure(latency=5.0)
        code, out, err = ask("--n", "2", "--budget-seconds", "0.3")
        assert (code, out) == (3, "") and "deadline" in err

    def test_openai_without_a_key(self, capsys: Any, monkeypatch: Any) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert main(["solve", "x", "--model", "gpt-4o-mini"]) == 2
        assert "OPENAI_API_KEY" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("name", "said"),
        [("v.py", "it is not a GGUF file"), ("./none", "there is no such file"), ("m.bin", "no such file")],
    )
    def test_a_file_that_is_no_model(self, capsys: Any, monkeypatch: Any, tmp_path: Path, name: str, said: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path("v.py").touch()
        assert main(["solve", "x", "--model", name]) == 2
        err = capsys.readouterr().err
        assert f"--model {name}: " in err and said in err and "OPENAI_API_KEY" not in err

    def test_a_gguf_that_is_not_there(self, capsys: Any) -> None:
        assert main(["solve", "x", "--model", "nowhere.gguf"]) == 6
        assert "nowhere.gguf" in capsys.readouterr().err

    def test_a_server_without_a_model(self, capsys: Any) -> None:
        assert main(["solve", "x", "--base-url", "http://127.0.0.1:9/v1"]) == 2
        assert "--model" in capsys.readouterr().err


class TestDryRun:
    def test_nothing_is_sent(self, ask: Any, server: LoopbackServer) -> None:
        code, out, _ = ask("--dry-run", "--n", "4", "--max-tokens", "100")
        assert code == 0 and server.counts.choices == 0 and not server.requests
        assert "worst case" in out and "unknown" in out and "half of max_tokens=100" in out

    def test_the_figures(self, ask: Any) -> None:
        options = ["--n", "8", "--max-tokens", "100", "--stop", "vote-decided", "--price", "1,2", "--json"]
        _, out, _ = ask("--dry-run", *options, prompt="x" * 40)
        plan = json.loads(out)
        assert [plan[row]["calls"] for row in ("minimum", "expected", "worst_case")] == [5, 7, 8]
        assert plan["expected"]["prompt_tokens"] == 7 * (10 + 2 * 5), "the bytes / 4, and the template"
        assert plan["expected"]["completion_tokens"] == 7 * 50 and "guessed" in " ".join(plan["notes"])
        assert plan["expected"]["usd"] == pytest.approx((140 * 1 + 350 * 2) / 1e6)
        assert plan["worst_case"]["completion_tokens"] == 800
        assert plan["worst_case"]["prompt_tokens"] >= 8 * 40
        assert plan["minimum"]["tokens"] < plan["expected"]["tokens"] < plan["worst_case"]["tokens"]

    def test_it_says_what_the_budget_cuts(self, ask: Any) -> None:
        _, out, _ = ask("--dry-run", "--budget-calls", "3", "--json")
        plan = json.loads(out)
        assert plan["room"] == 3 and any("room for 3 of 8" in note for note in plan["notes"])
        _, out, _ = ask("--dry-run", "--budget-tokens", "10", "--json")
        assert json.loads(out)["room"] == 0
        _, out, _ = ask("--dry-run", "--budget-calls", "8")
        assert "room for all 8" in out

    def test_the_worst_case_holds(self, ask: Any) -> None:
        options = ["--n", "3", "--max-tokens", "20"]
        _, out, _ = ask("--dry-run", "--json", *options)
        worst = json.loads(out)["worst_case"]["tokens"]
        _, out, _ = ask("--json", *options, "--budget-tokens", str(worst))
        found = json.loads(out)
        assert found["stopped"] == "complete" and len(found["candidates"]) == 3
        assert found["usage"]["tokens"] <= worst

    def test_the_local_model_is_not_started(self, capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
        monkeypatch.setenv("TTS_PLUGINS_CACHE", str(tmp_path / "none"))
        assert main(["solve", "x", "--dry-run"]) == 0
        assert "$0" in capsys.readouterr().out and not (tmp_path / "none").exists()


class TestBuild:
    def test_stop_rules(self) -> None:
        assert typed.stop_of([]) is None
        assert typed.stop_of(["threshold:0.9"]) == Threshold(0.9)
        assert typed.stop_of(["vote_lead:k=3,weighted=true"]) == VoteLead(3, weighted=True)
        assert typed.stop_of(["vote-decided", "threshold:1"]) == AnyOf(rules=(VoteDecided(), Threshold(1)))

    def test_strategies_in_kebab_and_snake_case(self) -> None:
        assert typed.strategy_of("best-of-n", {"n": 3}, verified=True) == BestOfN(n=3)
        assert typed.strategy_of("self_consistency", {}, verified=False) == SelfConsistency(n=8)
        assert typed.strategy_of(None, {"select": "weighted"}, verified=True) == BestOfN(n=8, select="weighted")
        assert typed.strategy_of(None, typed.settings_of(["wave=2"]), verified=False) == SelfConsistency(n=8, wave=2)

    def test_a_strategy_brings_its_stop_rule_and_says_nothing_twice(self) -> None:
        made = typed.strategy_of("best-of-n:n=4,stop=vote-lead:3", {}, verified=True)
        assert made == BestOfN(n=4, stop=VoteLead(3))
        assert typed.strategy_of("best-of-n:n=4", {"n": 4}, verified=True) == BestOfN(n=4)
        with pytest.raises(ConfigurationError, match=r"best-of-n:n=4 and --n give different values of n; give it once"):
            typed.strategy_of("best-of-n:n=4", {"n": 3}, verified=True)
        with pytest.raises(ConfigurationError, match=r"profile:x has its settings itself; leave out --n"):
            typed.strategy_of("profile:x", {"n": 3}, verified=True)
        with pytest.raises(ConfigurationError, match=r"profile='none-such' is not known"):
            typed.strategy_of("profile:none-such", {}, verified=True)

    def test_a_policy_that_chooses_by_score_needs_a_verifier(self, tmp_path: Path) -> None:
        file = tmp_path / "policy.json"
        plans = (Plan(budget=2, fixed=SelfConsistency(n=2)), Plan(budget=4, fixed=BestOfN(n=4)))
        ComputeOptimal(plans=plans).save(file)
        with pytest.raises(ConfigurationError, match=r"chooses by score, BestOfN\(n=4.*; give --verifier"):
            typed.strategy_of(f"compute-optimal:file={file}", {}, verified=False)
        for text, verified in ((f"file={file},budget=3", False), (f"file={file},any_model=True", True)):
            assert isinstance(typed.strategy_of(f"compute-optimal:{text}", {}, verified=verified), ComputeOptimal)

    def test_errors_name_options_that_were_given(self, capsys: Any) -> None:
        where = ["--model", "m", "--base-url", "http://127.0.0.1:9/v1"]
        for options, said in (
            (["--strategy", "beam-search:n=5,beam_width=2"], "BeamSearch: n=5 "),
            (["--n", "0"], "--n 0 "),
        ):
            assert main(["solve", "x", *where, *options]) == 2
            assert said in capsys.readouterr().err

    def test_brief(self) -> None:
        assert brief(BestOfN(n=4, stop=Threshold(0.9))) == "BestOfN(n=4, select='best', stop=Threshold(score=0.9))"

    def test_a_verifier_object(self, tmp_path: Path) -> None:
        made = write(tmp_path / "mine.py", "from tts_plugins.verifiers import AnswerAgreement\nv = AnswerAgreement()\n")
        verifier = verifier_of(f"python:{made}:v")
        assert verifier is not None and verifier.name == "AnswerAgreement"


class TestSeen:
    def test_the_leader_by_score_and_by_votes(self) -> None:
        seen = Seen()
        for index, (answer, score) in enumerate([("a", 0.2), ("b", 0.9), ("b", 0.1)]):
            start = {
                "id": index,
                "kind": "candidate",
                "candidate": f"c{index}",
                "index": index,
                "text": "t",
                "end": None,
            }
            seen.add(start)
            seen.add({**start, "end": 1.0, "answer": answer, "score": score})
        seen.add({"id": 9, "kind": "wave", "of": 8, "end": None})
        assert seen.leader is seen.rows["c1"] and seen.line() == "3 of 8 candidates, best score 0.90"
        for row in seen.rows.values():
            row.score = None
        assert seen.leader is seen.rows["c1"] and seen.line() == "3 of 8 candidates, 2 for b"

    def test_a_lost_candidate_does_not_lead(self) -> None:
        seen = Seen()
        start = {"id": 1, "kind": "candidate", "candidate": "c1", "index": 0, "text": "t", "end": None}
        seen.add({**start, "end": 1.0, "error": "VerifierError: boom"})
        assert seen.leader is None and seen.rows["c1"].error == "VerifierError: boom"


def test_version_and_help(capsys: Any) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tts-plugins {__version__}\n"
    assert main([]) == 0
    help = capsys.readouterr().out
    assert all(command in help for command in ("demo", "solve", "calibrate", "doctor"))
    for command in ("demo", "solve", "calibrate", "doctor"):
        assert main([command, "--help"]) == 0
        assert "tts-plugins" in capsys.readouterr().out


def test_an_unknown_command(capsys: Any) -> None:
    assert main(["solv"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_extra_one_line_says_so() -> None:
    hide = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name in ('typer', 'rich') else find(name, *rest)\n"
        "from tts_plugins.cli import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, env=_environment(), timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "tts-plugins: the command line needs typer and rich: pip install 'tts-plugins[cli]'\n"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": ""}


def _start(server: LoopbackServer, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tts_plugins", "solve", "x", "--model", "loopback", "--base-url", server.base_url]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(),
        preexec_fn=_from_a_terminal,
    )  # fmt: skip


def _from_a_terminal() -> None:
    """Hear signals, whatever the tests themselves were started by: `nohup` and `&` have some of them ignored."""
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@posix
@pytest.mark.parametrize(("to", "code", "said"), [(">&-", 0, ""), (">/dev/full", 1, "No space left"), ("2>&-", 0, "")])
def test_where_nobody_can_see_it(server: LoopbackServer, to: str, code: int, said: str) -> None:
    """Regression: a closed stdout ended in an AttributeError after all the work."""
    command = f"{sys.executable} -W error -m tts_plugins solve x --n 2 --model m --base-url {server.base_url} {to}"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=_environment(), timeout=120)
    assert ended.returncode == code and said in ended.stderr
    assert "Traceback" not in ended.stderr and "should not have happened" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sent", [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")])
class TestInterrupt:
    def test_the_best_so_far_is_returned(self, sent: signal.Signals) -> None:
        with LoopbackServer(
            reply="The answer is 4.", latency=lambda i: 0.0 if i < 2 else 600.0, honours_n=False
        ) as server:
            process = _start(server, "--n", "6", "--json")
            server.wait(lambda counts: counts.requests >= 6, timeout=120)
            time.sleep(1.0)  # the first two have been read
            process.send_signal(sent)
            out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found = json.loads(out)
        assert found["stopped"] == "cancelled" and found["answer"] == "4"
        assert "again to give up" in err

    def test_without_any_candidate(self, sent: signal.Signals) -> None:
        with LoopbackServer(latency=600.0) as server:
            process = _start(server, "--n", "2")
            server.wait(lambda counts: counts.active >= 1, timeout=120)
            process.send_signal(sent)
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (130, "")
        assert "interrupted before the first candidate" in err and "Traceback" not in err

    def test_while_it_scores(self, tmp_path: Path, sent: signal.Signals) -> None:
        slow = write(tmp_path / "slow.py", SLOW)
        with LoopbackServer() as server:
            process = _start(server, "--n", "2", "--verifier", f"python:{slow}:slow")
            server.wait(lambda counts: counts.choices >= 2, timeout=120)
            block_until(slow.with_suffix(".begun").exists)
            process.send_signal(sent)
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "ok\n"), err

    def test_one_after_the_other_until_it_has_ended(self, tmp_path: Path, sent: signal.Signals) -> None:
        """Regression: one that came after the last line of output killed the process, which then had no exit code."""
        problems = write(tmp_path / "in.jsonl", '{"id": "a", "prompt": "q", "answer": "1"}')
        with LoopbackServer(latency=120.0) as server:
            process = subprocess.Popen(
                [sys.executable, "-m", "tts_plugins", "rollouts", str(problems), "--out", str(tmp_path / "out.jsonl"),
                 "--model", "m", "--base-url", server.base_url, "--max-tokens", "9"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(),
                preexec_fn=_from_a_terminal,
            )  # fmt: skip
            server.wait(lambda counts: counts.active >= 1, timeout=60)
            until = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < until:
                process.send_signal(sent)
                time.sleep(0.05)
            out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (130, ""), err
        assert "what is done is kept in" in err and "interrupted" in err and "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("command", ["record", "bench"])
def test_a_command_in_the_background_of_a_script_ends_when_it_is_killed(tmp_path: Path, command: str) -> None:
    """Regression: SIGTERM was passed on as Ctrl-C, which a shell has ignored by what a script starts with &."""
    problems = write(tmp_path / "in.jsonl", '{"id": "a", "prompt": "q", "answer": "1"}')
    given = [str(problems)] if command == "record" else ["--problems", str(problems)]
    with LoopbackServer(latency=600.0) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "tts_plugins", command, *given, "--out", str(tmp_path / "out"), "--model", "m",
             "--base-url", server.base_url, "--max-tokens", "9"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )  # fmt: skip
        server.wait(lambda counts: counts.active >= 1, timeout=120)
        process.send_signal(signal.SIGINT)  # Ctrl-C is for what runs in front
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), err
    assert "is kept in" in err and "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
class TestSecondInterrupt:
    def test_a_second_one_gives_up(self, capsys: Any) -> None:
        class Stubborn:
            cancelled = 0

            async def __aiter__(self) -> AsyncIterator[Any]:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(0.05)
                await asyncio.sleep(60)
                yield {}

            def cancel(self) -> None:
                self.cancelled += 1

        events, before = Stubborn(), signal.getsignal(signal.SIGINT)
        view = SolveView(Console(stderr=True, force_terminal=False), "t", Ledger(), scored=False, quiet=False)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(watch(cast(Any, events), view))
        assert events.cancelled == 1 and "again to give up" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGINT) is before


def test_the_demos_progress_in_lines(capsys: Any) -> None:
    pytest.importorskip("jsonschema")
    from tts_plugins import Usage
    from tts_plugins.demo import DemoEvent

    with DemoView(Console(stderr=True, width=100, force_terminal=False), 8, "model") as view:
        for row in ("greedy", "best_of_n"):
            for done in (1, 2):
                view.add(
                    DemoEvent(
                        row=row, done=done, of=2, correct=done, problem="p", score=1.0,
                        usage=Usage(calls=done, completion_tokens=5000),
                    )
                )  # fmt: skip
        shown = Console(width=100, file=None, record=True, quiet=False)
        shown.print(view.render())
        picture = shown.export_text()
    err = capsys.readouterr().err
    assert "1 greedy answer: 2 of 2 texts, 2 right, 5,000 tokens" in err
    assert "best of 8, early stop" in picture and "100 % (34–100)" in picture


@pytest.mark.parametrize(("of", "few"), [(4, True), (5, True), (6, False)])
def test_a_demo_of_few_texts_says_that_it_proves_nothing(of: int, few: bool) -> None:
    from tts_plugins.demo.report import DemoReport, Outcome, Row

    def row(right: bool) -> Row:
        made = [Outcome(problem=str(i), level="a", correct=right, possible=right, result=None) for i in range(of)]
        return Row(strategy="x", outcomes=tuple(made), seconds=1.0)

    report = DemoReport(rows=(row(False), row(True), row(True)), settings={"n": 8})
    assert (f"{of} texts prove nothing: p cannot fall below" in report.sentence()) is few is (report.p_value > 0.05)


def test_a_policy_asks_the_larger_model_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.json"
    plan = Plan(budget=4, fixed=Ladder([Rung(strategy=SelfConsistency(n=2), model="large")]))
    ComputeOptimal(plans=(plan,), model="small", larger="large").save(path)
    with LoopbackServer() as server:
        command = ["solve", "x", "--model", "small", "--base-url", server.base_url]
        policy = ["--strategy", f"compute-optimal:file={path}"]
        assert main([*command, *policy, "--larger-model", "large"]) == 0
        assert [request.body["model"] for request in server.requests] == ["large"] * len(server.requests) != []
        capsys.readouterr()
        assert main([*command, *policy, "--larger-model", "large", "--dry-run"]) == 0
        assert "may be large's" in capsys.readouterr().out
        for options, said in (
            (["--larger-model", "large"], "is for a policy"),
            ([*policy, "--larger-model", "other"], "larger 'large', and runs with 'other'"),
        ):
            assert main([*command, *options]) == 2
            assert said in capsys.readouterr().err


def test_calibrate_writes_a_policy_and_shows_what_to_expect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pool = tmp_path / "samples.jsonl.gz"
    synthetic_pool(24, 4, exact=True).write(pool)
    out = tmp_path / "policy.json"
    assert (
        main(["calibrate", str(pool), "--out", str(out), "--budgets", "2,4", "--price", "1e-5", "--orders", "2"]) == 0
    )
    shown, reported = capsys.readouterr()
    assert "of synthetic, measured on 7 others" in shown and "one sample" in shown and str(out) in reported
    assert max(map(len, shown.splitlines())) <= 130  # the table has its place on a screen
    assert [plan.budget for plan in ComputeOptimal.from_file(out, model="synthetic").plans] == [2, 4]
    for options, said in (
        (["--budgets", "2,x"], "--budgets 2,x"),
        (["--budgets", "9"], "9 is more than the 4 samples"),
        (["--signal", "luck"], "signal='luck'"),
        (["--price", "1", "--target", "0"], "not both"),
        (["--batch", "0"], "--batch"),
    ):
        assert main(["calibrate", str(pool), "--out", str(out), *options]) == 2
        assert said in capsys.readouterr().err
    large = tmp_path / "large.jsonl.gz"
    synthetic_pool(24, 4, exact=True, strength=50).write(large)
    two = ["calibrate", str(pool), "--out", str(out), "--larger", str(large), "--budgets", "4", "--orders", "2"]
    assert main([*two, "--larger-price", "0.01", "--price", "1e-3"]) == 0
    assert "--larger-model synthetic-50" in capsys.readouterr().err
    assert ComputeOptimal.from_file(out).plans[0].models
    assert main(two) == 2 and "larger_price=None" in capsys.readouterr().err
    assert main([*two, "--larger-price", "2", "--confidence", "1"]) == 2 and "confidence=1.0" in capsys.readouterr().err
    assert main(["calibrate", str(tmp_path / "none"), "--out", str(out)]) == 6
    assert main(["calibrate", str(pool), "--out", str(tmp_path / "no" / "policy.json")]) == 2


class TestProfilesAndFiles:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("tts-plugins.toml").write_text(
            '[profiles.pair]\nstrategy = { type = "self-consistency", n = 2 }\nbudget = { calls = 3 }\n'
        )

    def test_a_profile_gives_what_is_not_typed(self, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        assert json.loads(ask("--profile", "pair", "--json")[1])["usage"]["calls"] == 2
        assert json.loads(ask("--profile", "pair", "--n", "9", "--json")[1])["usage"]["calls"] == 3
        monkeypatch.setenv("TTS_PLUGINS_PROFILE", "pair")
        assert json.loads(ask("--json")[1])["usage"]["calls"] == 2
        code, _, err = ask("--profile", "pear")
        assert code == 2 and "did you mean 'pair'" in err

    def test_they_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["profiles"]) == 0
        out = capsys.readouterr().out
        assert "pair" in out and "SelfConsistency(n=2)" in out and "tts-plugins.toml" in out
        assert main(["profiles", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pair"]["strategy"] == "SelfConsistency(n=2)"
        Path("tts-plugins.toml").write_text("[profiles.odd]\nstrategie = 1\n")
        assert main(["profiles"]) == 2
        assert "unknown field 'strategie'" in capsys.readouterr().err
        Path("tts-plugins.toml").unlink()
        assert main(["profiles"]) == 0 and "There are no profiles here" in capsys.readouterr().out

    def test_problems_of_a_file(self, server: LoopbackServer, capsys: pytest.CaptureFixture[str]) -> None:
        Path("q.jsonl").write_text('{"id": "a", "prompt": "One?"}\n{"id": "b", "prompt": "Two?"}\n')
        typed = ["solve", "--problems", "q.jsonl", "--model", "m", "--base-url", server.base_url, "--n", "2"]
        assert main(typed) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert sorted(line["id"] for line in lines) == ["a", "b"] and all(line["text"] for line in lines)
        server.configure(faults=Fault.status(401))
        assert main(typed) == 4
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["error"]["exit_code"] for line in lines] == [4, 4]
        assert main([*typed, "and a prompt"]) == 2

    def test_not_sure_enough(self, ask: Any, server: LoopbackServer) -> None:
        server.configure(reply=["Answer: 1", "Answer: 2", "Answer: 3", "Answer: 4"])
        code, out, err = ask("--n", "4", "--abstain-below", "0.9", "--json")
        assert code == 8 and json.loads(out)["abstained"] and "no answer" in err and err.count("a tie") == 1

    def test_version_and_completion(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["-V"]) == 0 and "tts-plugins 0." in capsys.readouterr().out
        # The shell is found among the processes above, so that there must be one.
        typed = ["bash", "-c", f"'{sys.executable}' -m tts_plugins --show-completion; exit $?"]
        shown = subprocess.run(typed, capture_output=True, text=True, timeout=120, check=False)
        assert shown.returncode == 0 and "complete" in shown.stdout, shown.stderr

    def test_doctor_looks_at_them(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        assert main(["doctor", "--no-run", "--json"]) == 0
        checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
        assert checks["profile pair"]["status"] == "ok" and "tts-plugins.toml" in checks["profile pair"]["said"]
        monkeypatch.setenv("TTS_PLUGINS_PROFILE", "pear")
        Path("tts-plugins.toml").write_text("[profiles.odd]\nstrategie = 1\n")
        assert main(["doctor", "--no-run", "--json"]) == 1
        checks = {c["name"]: c for c in json.loads(capsys.readouterr().out)["checks"]}
        assert checks["profile odd"]["status"] == checks["profile pear"]["status"] == "failed"
