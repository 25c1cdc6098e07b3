"""The process of one check: it is forked, confined, watched until it ends or is killed, and removed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import time
from typing import Any, NoReturn, Protocol

from tts_plugins.verifiers._sandbox import child, kernel

_FILE, _FILES, _DISK, _ENTRIES, _DEPTH = 8 << 20, 32, 32 << 20, 1000, 20
_OUTPUT = 1 << 20  # bytes that come from one process: verdicts, and what a program writes in between
_LOOK = 0.05  # seconds between looks at what has been written to disk


class Host(Protocol):
    """What an attempt needs from the process that forks it."""

    base: str
    confined: bool
    cancelled: bool
    memory: int
    version: int
    program: bytes
    reads: list[tuple[str, int]]

    def listen(self, request: dict[str, Any]) -> None:
        """Read what arrives while a check runs: a cancellation, or the end of the input."""


class Attempt:
    """One forked process, from its start until it is removed."""

    def __init__(self, zygote: Host, request: dict[str, Any], first: int, end: float) -> None:
        self.zygote, self.request, self.first, self.end = zygote, request, first, end
        self.outcomes: list[str | None] = []
        self.loaded = self.done = self.unwanted = False
        self.refused = self.trouble = ""
        self._key, self._rest, self._seen = os.urandom(8).hex(), b"", 0
        self._parent = os.getpid()
        self._folder = zygote.base

    def run(self) -> None:
        """Fork, follow, kill, clean up."""
        out, into = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._child(into)
        os.close(into)
        try:
            self._follow(out)
        finally:
            self._kill(pid)
            os.close(out)
            clear(self._folder)

    def _follow(self, out: int) -> None:
        limit = float(self.request["test_timeout"])
        since = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= min(since + limit, self.end):
                self.trouble = f"it took longer than {limit:g} s"
                return
            ready, _, _ = select.select([out, 0], [], [], min(_LOOK, since + limit - now, self.end - now))
            if 0 in ready:
                self.zygote.listen(self.request)
                if self.zygote.cancelled:
                    self.unwanted = True
                    return
            if out in ready:
                chunk = os.read(out, 1 << 16)
                self._seen += len(chunk)
                if not chunk:
                    return
                if self._seen > _OUTPUT:
                    self.trouble = "it wrote too much"
                    return
                since = time.monotonic() if self._read(chunk) else since
            if self.done or self.trouble:
                return
            if now - since > _LOOK / 2 and too_much(self._folder):
                self.trouble = "it wrote too many or too large files"
                return

    def _read(self, chunk: bytes) -> bool:
        """Read what it wrote; return whether there was a verdict in it."""
        news = False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            key, _, body = line.partition(b" ")
            if key.decode("latin-1") != self._key:
                continue
            what = json.loads(body)
            news = True
            if what[0] == "refused":
                self.refused = str(what[1])
            elif what[0] == "broken":
                self.trouble = str(what[1])
            elif what[0] == "loaded":
                self.loaded = True
            elif what[0] == "done":
                self.done = len(self.outcomes) == len(self.request["tests"]) - self.first
            elif what[0] == self.first + len(self.outcomes) < len(self.request["tests"]):
                self.outcomes.append(None if what[1] is None else str(what[1])[:500])
        return news

    def _kill(self, pid: int) -> None:
        if not self.zygote.confined:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # a process that is confined has no children
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not (self.trouble or self.refused or self.done or self.unwanted):
            ended = os.WIFEXITED(status)
            how = f"exit {os.WEXITSTATUS(status)}" if ended else signal.Signals(os.WTERMSIG(status)).name
            self.trouble = f"it ended the process ({how})"

    def _child(self, into: int) -> NoReturn:
        """Restrict this process, run the check, and end. It never returns into the code of the zygote."""
        code = 70
        try:
            send = child.sender(lambda data: write(3, data), self._key)
            try:
                self._settle(into)
            except BaseException as error:  # noqa: BLE001 - without all restrictions, no program runs
                send(["refused", f"{type(error).__name__}: {error}"])
            else:
                program, tests = self.request["program"], self.request["tests"]
                self._key = self.request["program"] = ""
                child.run(program, tests, self.first, send)
            code = 0
        finally:
            os._exit(code)

    def _settle(self, into: int) -> None:
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for place in (0, 1, 2):
            os.dup2(null, place)
        os.dup2(into, 3)  # if it has that number already, this changes nothing
        os.closerange(4, 256)
        os.chdir(self._folder)
        os.environ.clear()
        os.environ["TMPDIR"] = self._folder
        zygote, seconds = self.zygote, int(self.request["timeout"]) + 2
        kernel.limits(memory=zygote.memory, seconds=seconds, file_size=_FILE, files=_FILES)
        if zygote.confined:
            paths = [*zygote.reads, (self._folder, kernel.OWN)]
            kernel.confine(paths, version=zygote.version, program=zygote.program)
        if os.getppid() != self._parent:
            raise OSError("the process that checks has ended")  # before this one was bound to die with it


def too_much(folder: str) -> bool:
    """Return whether a folder holds more files, or more bytes, than a check may leave there."""
    size = entries = 0
    for path, folders, files in os.walk(folder):
        entries += len(folders) + len(files)
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(f"{path}/{name}").st_size
        if entries > _ENTRIES or size > _DISK or path.count("/") - folder.count("/") > _DEPTH:
            return True
    return False


def clear(folder: str) -> None:
    """Empty a folder, however deep: the content of a folder inside it is moved up before that one is removed."""
    moved = 0
    while names := os.listdir(folder):
        for name in names:
            path = f"{folder}/{name}"
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                if stat.S_ISDIR(os.lstat(f"{path}/{inner}").st_mode):
                    os.chmod(f"{path}/{inner}", 0o700)  # one that is closed cannot be moved either
                moved += 1
                try:
                    os.rename(f"{path}/{inner}", f"{folder}/{moved}.moved")
                except OSError:  # Landlock of version 1 knows no moving
                    shutil.rmtree(path, ignore_errors=True)
                    break
            if os.path.exists(path):
                os.rmdir(path)


def write(place: int, data: bytes) -> None:
    """Write all of the data."""
    while data:
        data = data[os.write(place, data) :]
