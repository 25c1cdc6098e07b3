"""Programs that try to get out of a sandbox, each with the world that it attacks. For `CodeTests`, and for yours.

An attack is a program that defines `attack()`. It has succeeded if that returns True, or if the world outside
shows it: a file is there, a listener was called, a process is dead, a check never ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET = "a-secret-that-nobody-may-read"
_USES = "import ctypes, fcntl, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time\n"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One hostile program.

    Attributes:
        name: what it does.
        program: Python; the names of `World.names` are set in it.
        shows: from outside, after it ran, whether it succeeded; None if only the program itself can tell.
        harmless: it may be run without a sandbox, to show that it would succeed there.
    """

    name: str
    program: str
    shows: Callable[[World], bool] | None = None
    harmless: bool = True


@dataclass
class World:
    """What is attacked: a secret file, a home, listeners, a process of the same user, an environment."""

    folder: Path
    victim: subprocess.Popen[bytes]
    names: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    @property
    def own(self) -> Path:
        """An empty folder, the home of an attack that is run without a sandbox."""
        return self.folder / "own"

    def source(self, attack: Attack) -> str:
        """Return the whole program, ready to be checked with the test `assert attack() is True`."""
        return _USES + "".join(f"{k} = {v!r}\n" for k, v in self.names.items()) + attack.program

    def alive(self) -> bool:
        """Return whether the process that is attacked still runs, and is not stopped."""
        if self.victim.poll() is not None:
            return False
        return Path(f"/proc/{self.victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "Tt"

    def renew(self) -> None:
        """Restore the state before an attack that succeeded."""
        _end(self.victim)
        self.victim = _start()
        self.names["VICTIM"] = self.victim.pid
        self.calls.clear()
        for path in self.folder.iterdir():
            if path.is_file() or path.is_symlink():
                path.unlink()
        (self.folder / "secret").write_text(SECRET)


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Yield a world that is removed afterwards. Meanwhile one key of this process's environment is set."""
    folder = Path(tempfile.mkdtemp(prefix="tts-plugins-world-", dir=Path.home()))
    victim = _start()
    made = World(folder, victim)
    os.environ["TTS_PLUGINS_ATTACKED_KEY"] = SECRET
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, True)
        stack.callback(os.environ.pop, "TTS_PLUGINS_ATTACKED_KEY", None)
        stack.callback(lambda: _end(made.victim))
        (folder / "secret").write_text(SECRET)
        made.own.mkdir()
        path, name = str(folder / "listener"), f"tts-plugins-{os.getpid()}-{victim.pid}"
        tcp = _listen(stack, made, "tcp", socket.AF_INET, ("127.0.0.1", 0))
        udp = _listen(stack, made, "udp", socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM)
        _listen(stack, made, "unix", socket.AF_UNIX, path)
        _listen(stack, made, "abstract", socket.AF_UNIX, f"\0{name}")
        made.names = {
            "SECRET": SECRET, "FILE": str(folder / "secret"), "HOME": str(folder), "VICTIM": victim.pid,
            "PARENT": os.getpid(), "TCP": tcp.getsockname()[1], "UDP": udp.getsockname()[1], "UNIX": path,
            "ABSTRACT": f"\0{name}",
        }  # fmt: skip
        yield made


def _listen(stack: contextlib.ExitStack, world: World, name: str, family: socket.AddressFamily, address: Any,
            kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:  # fmt: skip
    listener = stack.enter_context(socket.socket(family, kind))
    listener.bind(address)
    if kind is socket.SOCK_STREAM:
        listener.listen()
    listener.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                if kind is socket.SOCK_DGRAM:
                    listener.recv(10)
                else:
                    listener.accept()[0].close()
                world.calls.append(name)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(ended.set)
    return listener


def _start() -> subprocess.Popen[bytes]:
    code = "import time; print(1, flush=True); time.sleep(600)"
    victim = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, env={"VICTIM_KEY": SECRET})
    assert victim.stdout is not None
    victim.stdout.readline()
    return victim


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _def(*lines: str) -> str:
    return "def attack():\n" + "".join(f"    {line}\n" for line in lines)


def _called(name: str) -> Callable[[World], bool]:
    return lambda world: name in world.calls


def _exists(name: str) -> Callable[[World], bool]:
    return lambda world: (world.folder / name).exists()


_SYSCALL = "ask = ctypes.CDLL(None, use_errno=True)"

ATTACKS: tuple[Attack, ...] = (
    Attack(name="read a secret file", program=_def("return open(FILE).read() == SECRET")),
    Attack(name="list the home folder", program=_def("return len(os.listdir(HOME)) > 0")),
    Attack(name="read a secret through a hard link", program=_def(
        "os.link(FILE, HOME + '/linked')", "return open(HOME + '/linked').read() == SECRET")),
    Attack(name="read a secret through a symbolic link", program=_def(
        "os.symlink(FILE, os.getcwd() + '/linked')", "value = open('linked').read()", "os.unlink('linked')",
        "return value == SECRET")),
    Attack(name="write into the home folder", program=_def("open(HOME + '/written', 'w').write('x')", "return True"),
           shows=_exists("written")),
    Attack(name="write next to its own folder", program=_def(
        "path = os.path.dirname(os.getcwd()) + '/tts-written'", "open(path, 'w').write('x')", "os.unlink(path)",
        "return True")),
    Attack(name="change a file's mode", program=_def("os.chmod(FILE, 0o777)", "return True"),
           shows=lambda world: (world.folder / "secret").stat().st_mode & 0o777 == 0o777),
    Attack(name="cut a file", program=_def("open(HOME + '/cut', 'a').close()", "os.truncate(HOME + '/cut', 10)",
                                           "return True")),
    Attack(name="connect to the loopback", program=_def("socket.create_connection(('127.0.0.1', TCP), 2)",
                                                        "time.sleep(.3)", "return True"), shows=_called("tcp")),
    Attack(name="send a datagram", program=_def(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "s.sendto(b'x', ('127.0.0.1', UDP))",
        "time.sleep(.3)", "return True"), shows=_called("udp")),
    Attack(name="connect to the outside", harmless=False, program=_def(
        "s = socket.socket()", "s.settimeout(1)", "return s.connect_ex(('1.1.1.1', 443)) in (0, 11, 111, 115)")),
    Attack(name="listen on a port", program=_def("s = socket.socket()", "s.bind(('127.0.0.1', 0))", "s.listen()",
                                                 "return True")),
    Attack(name="connect to a unix socket", program=_def(
        "s = socket.socket(socket.AF_UNIX)", "s.connect(UNIX)", "time.sleep(.3)", "return True"),
        shows=_called("unix")),
    Attack(name="connect to an abstract unix socket", program=_def(
        "s = socket.socket(socket.AF_UNIX)", "s.connect(ABSTRACT)", "time.sleep(.3)", "return True"),
        shows=_called("abstract")),
    Attack(name="reach a unix socket through a pair", program=_def(
        "s, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", "s.connect(UNIX + '-none')", "return True"),
        harmless=False),
    Attack(name="fork", program=_def("pid = os.fork()", "if pid == 0: os._exit(0)", "os.waitpid(pid, 0)",
                                     "return True")),
    Attack(name="fork bomb", harmless=False, program=_def(
        "made = 0", "try:", "    while made < 100:", "        if os.fork() == 0:", "            time.sleep(30)",
        "        made += 1", "except OSError: pass", "return made > 0")),
    Attack(name="bomb of threads", program=_def(
        "for _ in range(200): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()", "return True")),
    Attack(name="start a shell", program=_def("return subprocess.run(['/bin/sh', '-c', 'exit 7']).returncode == 7")),
    Attack(name="become another program", harmless=False, shows=_exists("shell"), program=_def(
        "os.execv('/bin/sh', ['sh', '-c', 'echo x > ' + HOME + '/shell'])")),
    Attack(name="take 1 GB of memory", program=_def("x = bytearray(1 << 30)", "x[::4096] = b'x' * len(x[::4096])",
                                                    "return len(x) == 1 << 30")),
    Attack(name="map 1 GB of shared memory", program=_def("x = mmap.mmap(-1, 1 << 30)", "return len(x) == 1 << 30")),
    Attack(name="lift the limits", harmless=False, program=_def(
        "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "return True")),
    Attack(name="fill the disk", harmless=False, program=_def(
        "for i in range(100):", "    with open(f'f{i}', 'wb') as f:",
        "        for _ in range(7): f.write(bytes(1 << 20))", "return True")),
    Attack(name="endless output", harmless=False, program=_def(
        "while True:", "    for place in (1, 2, 3):", "        try: os.write(place, b'x' * 65536)",
        "        except OSError: pass")),
    Attack(name="endless loop", harmless=False, program=_def("while True:", "    try:", "        while True: pass",
                                                             "    except BaseException: pass")),
    Attack(name="read keys of the environment", program=_def(
        "return SECRET in os.environ.values() or 'TTS_PLUGINS_ATTACKED_KEY' in os.environ")),
    Attack(name="read the environment of its parent", program=_def(
        "return b'TTS_PLUGINS' in open(f'/proc/{os.getppid()}/environ', 'rb').read() or True")),
    Attack(name="read /proc of another", program=_def(
        "return SECRET.encode() in open(f'/proc/{VICTIM}/environ', 'rb').read()")),
    Attack(name="list the processes", program=_def("return str(VICTIM) in os.listdir('/proc')")),
    Attack(name="kill another process", program=_def("os.kill(VICTIM, signal.SIGKILL)", "return True"),
           shows=lambda world: not world.alive()),
    Attack(name="kill through a file of a process", program=_def(
        "place = os.pidfd_open(VICTIM)", "signal.pidfd_send_signal(place, signal.SIGKILL)", "return True"),
        shows=lambda world: not world.alive()),
    Attack(name="signal its parent", program=_def("os.kill(os.getppid(), 0)", "return True")),
    Attack(name="kill all that it may", harmless=False, program=_def("os.kill(-1, signal.SIGKILL)", "return True"),
           shows=lambda world: not world.alive()),
    Attack(name="have another signalled by input", program=_def(
        "a, b = socket.socketpair()", "fcntl.fcntl(a, fcntl.F_SETOWN, VICTIM)", "return True")),
    Attack(name="ptrace another process", program=_def(
        _SYSCALL, "done = ask.ptrace(16, VICTIM, None, None) == 0", "if done: os.waitpid(VICTIM, 0x40000000)",
        "if done: ask.ptrace(17, VICTIM, None, None)", "return done")),
    Attack(name="ptrace its parent", harmless=False, program=_def(
        _SYSCALL, "return ask.ptrace(16, os.getppid(), None, None) == 0")),
    Attack(name="read the memory of another", program=_def(
        _SYSCALL, "there = int(open(f'/proc/{VICTIM}/maps').readline().split('-')[0], 16)",
        "here = ctypes.create_string_buffer(8)", "local = struct.pack('QQ', ctypes.addressof(here), 8)",
        "return ask.process_vm_readv(VICTIM, local, 1, struct.pack('QQ', there, 8), 1, 0) == 8")),
    Attack(name="slow another down", program=_def("os.setpriority(os.PRIO_PROCESS, VICTIM, 5)", "return True")),
    Attack(name="open devices", program=_def(
        "for name in ('mem', 'kmsg', 'vda', 'sda', 'nvme0n1', 'kvm', 'fuse', 'ptmx', 'tty', 'full', 'zero'):",
        "    try: open('/dev/' + name, 'rb', buffering=0)", "    except OSError: continue", "    return True")),
    Attack(name="leave shared memory behind", program=_def(
        _SYSCALL, "found = ask.shmget(0, 4096, 0o1600)", "if found >= 0: ask.shmctl(found, 0, None)",
        "return found >= 0")),
    Attack(name="make a namespace", harmless=False, program=_def(
        _SYSCALL, "return ask.unshare(0x10000000) == 0")),
    Attack(name="mount a file system", harmless=False, program=_def(
        _SYSCALL, "return ask.mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) == 0")),
    Attack(name="watch files", program=_def(_SYSCALL, "return ask.inotify_init() >= 0")),
    Attack(name="change the root", harmless=False, program=_def("os.chroot('.')", "return True")),
)  # fmt: skip
# What a program says of itself to the pipe on which its verdict leaves; it must not pass for one.
FORGERY = 'import os\nos.write(3, b\'["loaded"]\\n[0, null]\\n["done"]\\n\')\nos._exit(0)\n'
