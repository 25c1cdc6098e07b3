"""Run every client of `examples/clients` against `tts-plugins serve`, and keep what it printed.

    python -m tests.client_transcripts [--to FOLDER] [NAME ...]

The server is the command itself, in a folder with one profile; its upstream is the loopback server, whose four samples
disagree. What is kept stands in docs/transcripts: each file has the script and its output. The package openai of npm is
looked for in the folder that TTS_PLUGINS_NODE_MODULES names (`npm install openai`), or in node_modules here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tts_plugins.testing.loopback import LoopbackServer, Reply

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "examples" / "clients"
KEPT = ROOT / "docs" / "transcripts"
COMMANDS: Mapping[str, Sequence[str]] = {
    "curl.sh": ("sh",), "openai_python.py": (sys.executable,), "openai_javascript.mjs": ("node",),
    "langchain_chat.py": (sys.executable,), "dspy_predict.py": (sys.executable,), "agents_sdk.py": (sys.executable,),
}  # fmt: skip
PROFILE = '[profiles.vote]\nstrategy = { type = "self-consistency", n = 4 }\n'
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 17, "b": 25}'}}]
# Where `npm install openai` was run; .ci/run does so.
NODE_MODULES = Path(os.environ.get("TTS_PLUGINS_NODE_MODULES", ROOT / "node_modules"))


def answer(body: Any, index: int) -> Any:
    """A tool call where there is a tool and no result yet; 42 for most, else."""
    said = [m for m in body.get("messages", []) if m["role"] == "tool"]
    if body.get("tools") and not said:
        return Reply(text="", tool_calls=CALLS)
    if "[[ ## answer ## ]]" in json.dumps(body):
        return "[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]"
    return "41" if index % 4 == 0 else "42"


@contextmanager
def command_serving(base_url: str, folder: Path) -> Iterator[str]:
    """The base URL of `tts-plugins serve` before this upstream, with the profile `vote`."""
    (folder / "tts-plugins.toml").write_text(PROFILE)
    command = [sys.executable, "-m", "tts_plugins", "serve", "--base-url", base_url, "--model", "loopback",
               "--port", "0"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://[\d.]+:\d+/v1$", process.stderr.readline().strip())
        assert found is not None
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        process.stderr.close()


def run(name: str, base_url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one client's script."""
    script = folder / name
    shutil.copy(SCRIPTS / name, script)
    if name.endswith(".mjs") and not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(NODE_MODULES)
    environment = {**os.environ, "BASE_URL": base_url, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*COMMANDS[name], str(script)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def transcript(name: str, said: str) -> str:
    """What is kept of one client: its script, and what it printed."""
    return f"$ {Path(COMMANDS[name][0]).name} examples/clients/{name}\n\n{said.rstrip()}\n\n" + script_of(name)


def script_of(name: str) -> str:
    """The part of a transcript that shows the script."""
    return f"---- {name} ----\n\n{(SCRIPTS / name).read_text('utf-8')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the transcripts; returns 1 where a client failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.client_transcripts", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(COMMANDS)}")
    parser.add_argument("--to", type=Path, default=KEPT, metavar="FOLDER", help="where to; default docs/transcripts")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(COMMANDS):
        parser.error(f"{min(unknown)!r} is not known; use {', '.join(COMMANDS)}")
    given.to.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(reply=answer, indexing="arrival") as upstream,
        command_serving(upstream.base_url, Path(folder)) as base_url,
    ):
        for name in given.names or COMMANDS:
            done = run(name, base_url, Path(folder))
            if done.returncode:
                failed += 1
                print(f"{name}: status {done.returncode}\n{done.stderr}", file=sys.stderr)
                continue
            (given.to / f"{Path(name).stem}.txt").write_text(transcript(name, done.stdout), "utf-8")
            print(f"{name}: written")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
