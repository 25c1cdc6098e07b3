"""Which sandbox this machine offers, found out by running it: bubblewrap, else Landlock; both with seccomp and limits.

What runs inside is not imported here: it needs Linux, and is sent as source.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tts_plugins.errors import SandboxUnavailable

Kind = Literal["bubblewrap", "landlock", "none"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock")
MEBI = 1 << 20

# Runs the sources that come as the first line of its input, under the names that they have in this package.
_BOOT = """
import json, sys, types
first = json.loads(sys.stdin.buffer.readline())
for name, source in first["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)
    if "." in name:
        parent, _, leaf = name.rpartition(".")
        setattr(sys.modules[parent], leaf, module)
sys.modules[name].main(first["settings"])
"""

# Each must pass where a sandbox holds. SECRET is a file that the process which asks can read.
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
    """What programs run in.

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
    """The kind of sandbox that works here, best first; None where there is none. It is tried once a process."""
    try:
        return find_sandbox().kind
    except SandboxUnavailable:
        return None


def find_sandbox(kinds: Sequence[Kind] = KINDS) -> Sandbox:
    """The first of these that works here. It takes some tenths of a second the first time.

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
_lock = threading.Lock()


def probe(kind: Kind) -> Sandbox | str:
    """The sandbox of this kind, or why it does not work here."""
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
    from tts_plugins.verifiers._sandbox.worker_process import Broken, SandboxProcess

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


def command(kind: Kind) -> list[str]:
    """How a process of this kind is started."""
    python = [os.path.realpath(sys.executable), "-s", "-S", "-E", "-P", "-B", "-c", _BOOT]
    if kind != "bubblewrap":
        return python
    wrap = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--cap-drop", "ALL", "--hostname", "sandbox"]
    for path in [*readable(), python[0]]:
        wrap += ["--ro-bind-try", path, path]
    wrap += ["--dev-bind", "/dev/null", "/dev/null", "--ro-bind-try", "/dev/urandom", "/dev/urandom"]
    return [*wrap, "--size", str(64 * MEBI), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp", *python]


def first_line(kind: Kind, base: str, memory: int) -> dict[str, Any]:
    """What a new process is told: its sources and its settings."""
    modules = [("tts_plugins", ""), ("tts_plugins.verifiers", "")]
    for part in ("kernel", "child", "attempt", "zygote"):
        source = Path(__file__).with_name(f"_sandbox_{part}.py").read_text(encoding="utf-8")
        modules.append((f"tts_plugins.verifiers._sandbox_{part}", source))
    settings = {"confined": kind != "none", "memory": memory, "base": base, "reads": readable()}
    return {"modules": modules, "settings": settings}


def readable() -> list[str]:
    """What a program may read: Python's own library, the system's libraries, time zones. Nothing of a user's."""
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    paths = dict.fromkeys(os.path.realpath(p) if p.startswith(sys.base_prefix) else p for p in python)
    return [p for p in [*paths, *system] if os.path.exists(p)]
