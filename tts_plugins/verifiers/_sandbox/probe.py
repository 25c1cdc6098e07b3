"""Find the sandbox that works on this machine by trying it: bubblewrap or Landlock, with seccomp and limits."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tts_plugins._concurrency import forks
from tts_plugins.errors import SandboxUnavailable
from tts_plugins.verifiers._sandbox.launch import KINDS, MEBI, Kind
from tts_plugins.verifiers._sandbox.worker_process import Broken, SandboxProcess

# Each must pass if a sandbox holds. SECRET is a file that this process, which starts the sandbox, can read.
_HOLDS = (
    "assert add(1, 2) == 3",
    "assert refused(lambda: open(SECRET).read())",
    "assert refused(lambda: open(HOME, 'w'))",
    "assert refused(lambda: socket.socket(socket.AF_INET))",
    "assert refused(lambda: socket.socket(socket.AF_UNIX))",
    "assert refused(lambda: os.kill(os.getppid(), 0))",
    "assert refused(lambda: open('/proc/self/environ').read())",
    "assert refused(lambda: os._exit(0) if os.fork() == 0 else None)",
    "assert open('own', 'w').write('x') == 1",
)
_TRIES = """
import os, socket
def add(a, b): return a + b
def refused(action):
    try: action()
    except OSError: return True
    return False
"""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What programs run in, on this machine.

    Attributes:
        kind: "bubblewrap", "landlock", or "none".
        landlock: the version of Landlock that holds in it, too; 0 where the kernel has none.
        lacking: why the kinds that were tried before do not work here.
    """

    kind: Kind
    landlock: int = 0
    lacking: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        if self.kind == "none":
            return "none: programs run with limits, but without a sandbox"
        parts = ["namespaces"] if self.kind == "bubblewrap" else []
        parts += [f"Landlock {self.landlock}"] if self.landlock else []
        return f"{self.kind} ({', '.join([*parts, 'seccomp', 'limits'])})"


def sandbox_kind() -> Kind | None:
    """Return the best kind of sandbox that works here, or None. Each process tries once."""
    try:
        return find_sandbox().kind
    except SandboxUnavailable:
        return None


def find_sandbox(kinds: Sequence[Kind] = KINDS) -> Sandbox:
    """Return the first of these kinds that works here. The first call takes some tenths of a second.

    Raises:
        SandboxUnavailable: none does.
    """
    lacking = dict[str, str]()
    for kind in kinds:
        found = probe(kind)
        if isinstance(found, Sandbox):
            return Sandbox(kind=kind, landlock=found.landlock, lacking=MappingProxyType(lacking))
        lacking[kind] = found
    reasons = "; ".join(f"{kind}: {why}" for kind, why in lacking.items())
    raise SandboxUnavailable(
        f"CodeTests: no sandbox works here ({reasons}); install bubblewrap, use Linux 5.13 or later with Landlock, "
        "or write unsafe=True to run programs of a model with your own rights"
    )


_probed: dict[Kind, Sandbox | str] = {}
_lock = forks.lock()


def probe(kind: Kind) -> Sandbox | str:
    """Return the sandbox of this kind, or why it does not work here."""
    with _lock:
        if kind not in _probed:
            _probed[kind] = _probe(kind)
        return _probed[kind]


def _probe(kind: Kind) -> Sandbox | str:
    if kind == "none":
        return Sandbox(kind="none")
    if sys.platform != "linux":
        return f"it needs Linux, and this is {sys.platform}"
    if kind == "bubblewrap" and shutil.which("bwrap") is None:
        return "bwrap is not installed"
    from tts_plugins.verifiers._sandbox.kernel import landlock_version

    if kind == "landlock" and landlock_version() == 0:
        return "the kernel offers no Landlock"

    with tempfile.NamedTemporaryFile("w", prefix="tts-plugins-probe-") as secret:
        secret.write("secret")
        secret.flush()
        process = SandboxProcess(kind, memory=256 * MEBI)
        try:
            named = f"SECRET = {secret.name!r}\nHOME = {str(Path.home() / '.tts-plugins-probe')!r}\n"
            reply = process.ask({"program": named + _TRIES, "tests": _HOLDS, "timeout": 10.0, "test_timeout": 5.0})
            landlock = process.landlock
        except (Broken, OSError) as error:
            return str(error)
        finally:
            process.end()
    failed = [f"{test}: {why}" for test, why in zip(_HOLDS, reply.get("outcomes", ()), strict=False) if why]
    if failed or len(reply.get("outcomes", ())) < len(_HOLDS):
        return f"it does not hold: {failed[0] if failed else reply}"
    return Sandbox(kind=kind, landlock=landlock)
