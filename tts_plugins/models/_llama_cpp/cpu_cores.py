"""How many cores this process may use, and how many of them are free."""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path

_SAMPLE_SECONDS = 0.1


def default_threads() -> int:
    """Return the threads to use for CPU inference: our physical cores, less those that others keep busy; at least 1.

    Blocks 0.1 s while the load is measured.
    """
    # Tokens/s of the embedded model on 2 shared cores, one request / four at once, threads waiting passively:
    #             otherwise idle    beside one busy process
    # 1 thread        43 / 36              53 / 38
    # 2 threads       57 / 54              15 / 19
    # A thread too many costs more than one too few, so the cores that others use are left to them.
    allowed = usable_cores()
    busy = _busy_cores()
    return max(1, min(allowed, round(allowed - busy)))


def usable_cores() -> int:
    """Return physical cores under the affinity mask and the cgroup's CPU quota; at least 1."""
    logical = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = float(_physical(logical))
    quota = cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, math.floor(min(cores, quota if quota is not None else cores)))


def _physical(logical: set[int]) -> int:
    """Return cores behind the logical ones: two hyperthreads of a core compute no faster than one here."""
    siblings = set()
    for cpu in logical:
        try:
            siblings.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:  # not Linux, or a sandbox without sysfs: x86 is taken to have two threads a core
            x86 = platform.machine().lower() in {"x86_64", "amd64", "i386", "i686"}
            return max(1, len(logical) // 2) if x86 else len(logical)
    return max(1, len(siblings))


def cgroup_quota(root: Path, membership: Path) -> float | None:
    """Return the tightest CPU quota, in cores, of the cgroup (v2 or v1) and its ancestors; None if there is none."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        at = base / path.lstrip("/")
        # In a container the path may be the host's and absent here; the root then holds the container's own limit.
        quotas += [_quota(folder) for folder in (at, *at.parents) if folder == base or base in folder.parents]
    known = [quota for quota in quotas if quota is not None]
    return min(known) if known else None


def _quota(folder: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            fields = " ".join((folder / name).read_text() for name in names).split()
        except OSError:  # the other version of cgroups, or a group without the controller
            continue
        if fields[0] not in {"max", "-1"}:
            return int(fields[0]) / int(fields[1])
    return None


def _busy_cores() -> float:
    """Return the cores in use now on the whole machine: from /proc, else the load average; 0 if neither is known."""
    before = _idle_ticks()
    if before is None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    time.sleep(_SAMPLE_SECONDS)
    after = _idle_ticks() or before
    total = after[1] - before[1]
    return (os.cpu_count() or 1) * (1 - (after[0] - before[0]) / total) if total else 0.0


def _idle_ticks() -> tuple[int, int] | None:
    """Return the (idle, all) clock ticks of all cores since boot; None if this is not Linux."""
    try:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
    except OSError:  # not Linux
        return None
    return fields[3] + fields[4], sum(fields)
