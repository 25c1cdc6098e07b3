"""What the Linux kernel refuses a process: Landlock, seccomp, capabilities, resource limits.

Only the standard library, through ctypes; it runs inside of the sandbox, too, where this package is not to be seen.
Nothing here can be taken back by the process that it is applied to.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence

# From landlock.h. A version of the kernel knows the first `count` of these: `(1 << count) - 1`.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _REFER, _TRUNCATE = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13, 1 << 14
_ON_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | 1 << 15
READ = _READ | _LIST
OWN = READ | _WRITE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _REFER | _TRUNCATE
DROP = _REMOVE_DIR
USE = _READ | _WRITE
_SCOPES = 3  # abstract unix sockets and signals, from version 6 on

# The system calls of a program of one process and one thread, without network: numbers on x86-64 and on aarch64.
# Not here, and so refused: clone, fork, execve, kill, ptrace, socket, connect, chmod, chown, link, symlink, mount,
# shmget, mq_open, memfd_create, io_uring_setup, keyctl, bpf, perf_event_open, process_vm_readv, setrlimit, …
_CALLS: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "nanosleep": (35, 101), "getitimer": (36, 102),
    "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172), "sendfile": (40, 71), "sendto": (44, 206),
    "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212), "shutdown": (48, 210),
    "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209), "exit": (60, 93),
    "uname": (63, 160), "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46),
    "getdents": (78, None), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None),
    "mkdir": (83, None), "rmdir": (84, None), "creat": (85, None), "unlink": (87, None), "readlink": (89, None),
    "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, None), "getgroups": (115, 158),
    "getpgid": (121, 155), "getsid": (124, 156), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "statfs": (137, 43), "fstatfs": (138, 44),
    "gettid": (186, 178), "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "epoll_create": (213, None), "getdents64": (217, 61), "set_tid_address": (218, 96), "fadvise64": (221, 223),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "exit_group": (231, 94), "epoll_wait": (232, None), "epoll_ctl": (233, 21), "openat": (257, 56),
    "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38),
    "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "epoll_create1": (291, 20),
    "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69), "pwritev": (296, 70), "getcpu": (309, 168),
    "renameat2": (316, 276), "getrandom": (318, 278), "membarrier": (324, 283), "copy_file_range": (326, 285),
    "statx": (332, 291), "rseq": (334, 293), "close_range": (436, 436), "faccessat2": (439, 439),
}  # fmt: skip
# These only with one of some values in an argument: (its place, the values). Pairs of sockets only as streams, which
# can be connected to nothing else; no owner of a file (who would get signals); the limits of oneself only.
_ONLY: Mapping[str, tuple[tuple[int | None, int | None], int, tuple[int, ...]]] = {
    "ioctl": ((16, 29), 1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),
    "socketpair": ((53, 199), 1, (1, 0x801, 0x80001, 0x80801)),
    "prlimit64": ((302, 261), 0, (0,)),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column above; the name in an audit
_SECCOMP, _NO_NEW_PRIVS, _DEATH_SIGNAL, _DUMPABLE, _DROP_BOUND = 22, 38, 1, 4, 24
_CAPSET = {"x86_64": 126, "aarch64": 91}
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
_NEWEST = 462  # newer calls than this were not considered

_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result


def _prctl(option: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> None:
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    if _libc.prctl(ctypes.c_int(option), *wide) < 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers; 0 if it offers none."""
    try:
        return _call(444, None, 0, 1)
    except OSError:
        return 0


def landlock(version: int, allowed: Iterable[tuple[str, int]]) -> None:
    """Refuse all use of files but of what stands beneath `allowed`, as (path, rights); paths that are not there
    allow nothing. From version 6 on signals to processes outside of this one's domain are refused, too.

    Raises:
        OSError: the kernel does not do it.
    """
    known = (1 << _RIGHTS.get(version, 16)) - 1
    handled = struct.pack("=QQQ", known, 3 if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call(444, handled[:size], size, 0)
    try:
        for path, rights in allowed:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                rights &= known if os.path.isdir(path) else known & _ON_FILES
                _call(445, rules, 1, struct.pack("=Qi", rights, place), 0)
            finally:
                os.close(place)
        _call(446, rules, 0)
    finally:
        os.close(rules)


def no_privileges(*, mortal: bool) -> None:
    """Give up all capabilities and the right to gain rights; with `mortal`, the process dies with its parent."""
    _prctl(_NO_NEW_PRIVS, 1)
    for capability in range(64):
        try:
            _prctl(_DROP_BOUND, capability)
        except OSError:
            break  # past the last one, or not ours to drop, and then the empty sets below are enough
    _call(_CAPSET[platform.machine()], struct.pack("=II", 0x20080522, 0), bytes(24))
    if mortal:
        _prctl(_DEATH_SIGNAL, 9)


def limits(*, memory: int, seconds: int, file_size: int, files: int) -> None:
    """Limit, for good, bytes of address space, seconds of processor, bytes of a file, and open files; no core dumps."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        if what == resource.RLIMIT_AS and sys.platform == "darwin":
            continue  # the kernel refuses to set limits that it does not enforce
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def seccomp_filter() -> bytes:
    """Return the filter in the form that the kernel reads.

    Raises:
        OSError: the machine is neither x86-64 nor aarch64.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(f"no list of system calls for {platform.machine()}; there is one for {', '.join(_MACHINES)}")
    column, audit = _MACHINES[platform.machine()]
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    code = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, _KILL), (load, 0, 0, 0)]
    code += [(above, 0, 1, _NEWEST + 1), (give, 0, 0, _ENOSYS)]  # x32 calls are above it, too
    for numbers in _CALLS.values():
        if (number := numbers[column]) is not None:
            code += [(equal, 0, 1, number), (give, 0, 0, _ALLOW)]
    for numbers, place, values in _ONLY.values():
        if (number := numbers[column]) is not None:
            code += [(equal, 0, 2 * len(values) + 2, number), (load, 0, 0, 16 + 8 * place)]
            for value in values:
                code += [(equal, 0, 1, value), (give, 0, 0, _ALLOW)]
            code += [(give, 0, 0, _EPERM)]
    code += [(equal, 0, 1, 435), (give, 0, 0, _ENOSYS), (give, 0, 0, _EPERM)]  # clone3: libc then asks for clone
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def seccomp(program: bytes) -> None:
    """Allow only what the filter allows from now on."""
    lines = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(lines))
    _prctl(_SECCOMP, 2, ctypes.create_string_buffer(head, len(head)))


def not_dumpable() -> None:
    """Keep other processes from looking into this one."""
    _prctl(_DUMPABLE, 0)


def confine(paths: Sequence[tuple[str, int]], *, version: int, program: bytes) -> None:
    """Apply all restrictions to this process, before it runs a candidate's program.

    Raises:
        OSError: something of it cannot be had; nothing must run then.
    """
    no_privileges(mortal=True)
    not_dumpable()
    if version:
        landlock(version, paths)
    seccomp(program)
