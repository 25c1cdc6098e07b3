"""What each extra weighs on the disk, and what importing the package costs beside its own dependencies.

    python -m benchmarks.packaging                  # every extra but the two largest; a minute or two each
    python -m benchmarks.packaging --only cli local

An extra's weight is that of an empty folder into which pip installed it, less the weight of the bare package. Imports
are timed in processes of their own, in turns, as CPU time; the ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGE = ("transformers", "bench", "dev", "docs", "testing", "all")
IMPORTS = ("numpy", "openai", "tts_plugins", "tts_plugins_openai")
_TIME = "import time, sys; t = time.process_time(); import {}; print(time.process_time() - t, len(sys.modules))"


def weight(requirement: str) -> int:
    """The bytes of what pip installs into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", folder, requirement]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def imports(rounds: int) -> dict[str, tuple[float, int]]:
    """For each package the median CPU seconds of its import, and the modules that are loaded then."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name in IMPORTS:
            command = [sys.executable, "-c", _TIME.format(name)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, count = done.stdout.split()
            found[name].append((float(seconds), int(count)))
    return {name: (statistics.median(s for s, _ in each), each[0][1]) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="these extras; none for the imports alone")
    given = parser.parse_args()
    print("| import | CPU / numpy's | modules |\n|---|---|---|")
    timed = imports(9)
    for name, (seconds, count) in timed.items():
        print(f"| `{name}` | {seconds / timed['numpy'][0]:.2f} | {count} |")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    chosen = [name for name in extras if name not in LARGE] if given.only is None else given.only
    if not chosen:
        return
    bare = weight(str(ROOT))
    print(f"\n| extra | MB |\n|---|---|\n| (none) | {bare / 1e6:.0f} |", flush=True)
    for name in chosen:
        print(f"| `{name}` | + {(weight(f'{ROOT}[{name}]') - bare) / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
