"""Hostile programs under each kind of sandbox that this machine offers; what is left behind; what is killed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox_attacks import ATTACKS, FORGERY, Attack, World, world
from tests.waiting import block_until, until
from tts_plugins.errors import ConfigurationError, VerifierError
from tts_plugins.verifiers import CodeTests, SandboxUnavailable, sandbox_kind
from tts_plugins.verifiers._sandbox import probe as sandbox
from tts_plugins.verifiers._sandbox.launch import KINDS, Kind
from tts_plugins.verifiers._sandbox.probe import Sandbox, probe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes are of Linux")
ADD, ADDS = "def add(a, b): return a + b", "assert add(1, 2) == 3"
LOOP = "def add(a, b):\n    while True: pass"
YAMA, TRACES = Path("/proc/sys/kernel/yama/ptrace_scope"), ("ptrace another process", "read the memory of another")
HARMLESS = [a for a in ATTACKS if a.harmless]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found = probe(request.param)
    if not isinstance(found, Sandbox):
        pytest.skip(f"{request.param}: {found}")
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def attacked(shared: World) -> World:
    shared.renew()
    return shared


@pytest.fixture
def verifier(kind: Kind) -> Iterator[CodeTests]:
    with CodeTests(tests=[ADDS], sandbox=kind, timeout=2.0, test_timeout=1.0, workers=1) as made:
        yield made


def folders() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("tts-plugins-checks-")}


def descendants(pid: int) -> set[int]:
    found = set[int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            child = int(stat.parent.name)
            found |= {child} | descendants(child)
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_no_attack_succeeds(verifier: CodeTests, attacked: World) -> None:
    assert len(ATTACKS) >= 40
    succeeded = []
    for attack in ATTACKS:
        since = time.monotonic()
        (outcome,) = await verifier.check(attacked.source(attack), ["assert attack() is True"])
        assert time.monotonic() - since < 20, attack.name
        if outcome is None or (attack.shows is not None and attack.shows(attacked)):
            succeeded.append(attack.name)
        assert len(outcome or "") < 1000
    assert succeeded == []
    assert attacked.alive()
    assert attacked.calls == []
    assert await verifier.check(ADD, [ADDS]) == [None], "it still works after all of them"


@pytest.mark.parametrize("attack", HARMLESS, ids=lambda a: a.name)
def test_each_attack_would_succeed_without_a_sandbox(attack: Attack, attacked: World) -> None:
    source = f"{attacked.source(attack)}\nsys.exit(7 if attack() is True else 1)\n"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120, cwd=attacked.own)
    if done.returncode != 7 and YAMA.exists() and YAMA.read_text().strip() != "0" and attack.name in TRACES:
        pytest.skip("this machine lets no process look into another anyway")
    assert done.returncode == 7, done.stderr
    if attack.shows is not None:
        block_until(lambda: attack.shows is not None and attack.shows(attacked))


async def test_a_forged_verdict_counts_for_nothing(verifier: CodeTests) -> None:
    (outcome,) = await verifier.check(FORGERY + ADD, [ADDS])
    assert outcome is not None and "ended the process" in outcome


async def test_one_warm_process_checks_all_programs(verifier: CodeTests) -> None:
    """`benchmarks/code_tests.py` measures how long one takes."""
    await verifier.check(ADD, [ADDS])
    warm = descendants(os.getpid())
    for _ in range(30):
        assert await verifier.check(ADD, [ADDS]) == [None]
        await until(lambda: descendants(os.getpid()) == warm)


async def test_each_check_has_an_empty_folder_of_its_own(verifier: CodeTests) -> None:
    program = "import os, tempfile\nwhat = os.listdir()\nopen('left', 'w').write('x')\nos.makedirs('a/b/c')\n"
    for _ in range(2):
        tests = ["assert what == []", "assert open('left').read() == 'x'",
                 "assert tempfile.mkdtemp().startswith(os.getcwd())"]  # fmt: skip
        assert await verifier.check(program, tests) == [None, None, None]


async def test_a_deep_or_closed_folder_is_removed_all_the_same(verifier: CodeTests) -> None:
    deep = "import os\nfor _ in range(900):\n    os.mkdir('d')\n    os.chdir('d')\nos.mkdir('closed', 0)\n" + ADD
    await verifier.check(deep, [ADDS])
    assert await verifier.check("import os\nwhat = os.listdir()", ["assert what == []"]) == [None]
    assert await verifier.check(ADD, [ADDS]) == [None]


async def test_a_cancelled_check_is_killed_and_the_process_stays_warm(kind: Kind) -> None:
    with CodeTests(tests=[ADDS], sandbox=kind, timeout=600, test_timeout=600, workers=1) as verifier:
        await verifier.check(ADD, [ADDS])
        warm = descendants(os.getpid())
        task = asyncio.create_task(verifier.check(LOOP, [ADDS]))
        await until(lambda: descendants(os.getpid()) - warm)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)  # of the ten minutes that it could take
        await until(lambda: descendants(os.getpid()) == warm)
        assert await verifier.check(ADD, [ADDS]) == [None]
        assert descendants(os.getpid()) == warm


async def test_cancelling_a_crowd_hits_no_other_check(kind: Kind) -> None:
    with CodeTests(tests=[ADDS], sandbox=kind, workers=2) as verifier:
        for _ in range(10):
            tasks = [asyncio.create_task(verifier.check(ADD, [ADDS])) for _ in range(8)]
            await asyncio.sleep(0.01)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(d == [None] for d in done[1::2])


async def test_the_loop_goes_on_meanwhile(verifier: CodeTests) -> None:
    turns, running = 0, asyncio.create_task(verifier.check(LOOP, [ADDS]))
    while not running.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns >= 5  # of a hundred in the second that it takes: the machine may be busy


async def test_closing_leaves_nothing(kind: Kind) -> None:
    before, there = descendants(os.getpid()), folders()
    verifier = CodeTests(tests=[ADDS], sandbox=kind, workers=2)
    task = asyncio.create_task(verifier.check(LOOP, [ADDS]))
    await verifier.check(ADD, [ADDS])
    await asyncio.to_thread(verifier.close)
    with pytest.raises(VerifierError, match="closed"):
        await task
    assert descendants(os.getpid()) == before
    assert folders() <= there


async def test_one_that_is_forgotten_ends_its_processes(kind: Kind) -> None:
    before, there = descendants(os.getpid()), folders()
    verifier = CodeTests(tests=[ADDS], sandbox=kind)
    await verifier.check(ADD, [ADDS])
    del verifier
    gc.collect()
    await until(lambda: descendants(os.getpid()) == before and folders() <= there)


def test_a_program_killed_in_the_middle_leaves_nothing(kind: Kind) -> None:
    code = (
        "import asyncio, sys\nfrom tts_plugins.verifiers import CodeTests\n"
        f"v = CodeTests(tests=[{ADDS!r}], sandbox={kind!r}, timeout=60, test_timeout=60)\n"
        f"asyncio.run(v.check({ADD!r}, [{ADDS!r}]))\nprint('up', flush=True)\n"
        f"asyncio.run(v.check({LOOP!r}, [{ADDS!r}]))\n"
    )
    there = folders()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    block_until(lambda: len(descendants(process.pid)) >= 2)
    left = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    block_until(lambda: not any(running(pid) for pid in left) and folders() <= there)


async def test_a_process_killed_from_outside_is_replaced(verifier: CodeTests) -> None:
    before = descendants(os.getpid())
    await verifier.check(ADD, [ADDS])
    for pid in descendants(os.getpid()) - before:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert await verifier.check(ADD, [ADDS]) == [None]


def test_the_kind_and_what_better_ones_lack_are_visible(kind: Kind) -> None:
    with CodeTests(tests=[ADDS], sandbox=kind) as verifier:
        assert verifier.sandbox.kind == kind
        assert kind in str(verifier.sandbox)
    assert sandbox_kind() in KINDS


def test_without_any_it_refuses_unless_unsafe_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_probed", {"bubblewrap": "bwrap is not installed", "landlock": "no Landlock"})
    assert sandbox_kind() is None
    with pytest.raises(SandboxUnavailable, match=r"bwrap is not installed.*no Landlock.*unsafe=True"):
        CodeTests(tests=[ADDS])
    with CodeTests(tests=[ADDS], unsafe=True) as verifier:
        assert verifier.sandbox.kind == "none"
        assert verifier.sandbox.lacking["landlock"] == "no Landlock"
        assert asyncio.run(verifier.check(ADD, [ADDS])) == [None]


def test_a_bwrap_that_does_nothing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sandbox, "_probed", {})
    found = probe("bubblewrap")
    assert isinstance(found, str) and "bubblewrap process" in found


async def test_unsafe_still_has_limits_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    with CodeTests(tests=[ADDS], sandbox="none", unsafe=True, timeout=1.0, test_timeout=0.5) as verifier:
        tests = ["assert 'A_KEY' not in os.environ", "assert bytearray(1 << 30)", "while True: pass"]
        first, second, third = await verifier.check("import os", tests)
        assert first is None
        assert second is not None and "MemoryError" in second
        assert third is not None and "longer than" in third


def test_none_needs_unsafe() -> None:
    with pytest.raises(ConfigurationError, match="unsafe=True"):
        CodeTests(tests=[ADDS], sandbox="none")
