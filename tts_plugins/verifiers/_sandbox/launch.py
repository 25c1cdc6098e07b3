"""How a process of a sandbox is started: its command, its sources, what it may read.

What runs inside is not imported here: it needs Linux, and is sent as source.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any, Literal

Kind = Literal["bubblewrap", "landlock", "none"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "landlock")
MEBI = 1 << 20

# It runs the sources from the first line of its input, under the names that they have in this package.
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


def command(kind: Kind) -> list[str]:
    """Return the command that starts a process of this kind."""
    python = [os.path.realpath(sys.executable), "-s", "-S", "-E", "-P", "-B", "-c", _BOOT]
    if kind != "bubblewrap":
        return python
    wrap = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--cap-drop", "ALL", "--hostname", "sandbox"]
    for path in [*readable(), python[0]]:
        wrap += ["--ro-bind-try", path, path]
    wrap += ["--dev-bind", "/dev/null", "/dev/null", "--ro-bind-try", "/dev/urandom", "/dev/urandom"]
    return [*wrap, "--size", str(64 * MEBI), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp", *python]


def first_line(kind: Kind, base: str, memory: int) -> dict[str, Any]:
    """Return what a new process is sent first: its sources and its settings."""
    modules = [("tts_plugins", ""), ("tts_plugins.verifiers", ""), ("tts_plugins.verifiers._sandbox", "")]
    for part in ("kernel", "child", "attempt", "zygote"):
        source = Path(__file__).with_name(f"{part}.py").read_text(encoding="utf-8")
        modules.append((f"tts_plugins.verifiers._sandbox.{part}", source))
    settings = {"confined": kind != "none", "memory": memory, "base": base, "reads": readable()}
    return {"modules": modules, "settings": settings}


def readable() -> list[str]:
    """Return what a program may read: Python's library, the system's libraries, time zones; nothing of a user's."""
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    paths = dict.fromkeys(os.path.realpath(p) if p.startswith(sys.base_prefix) else p for p in python)
    return [p for p in [*paths, *system] if os.path.exists(p)]
