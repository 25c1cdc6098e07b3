"""Figures as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: str | Path, told: Any) -> None:
    """Write `told` in one step: the file is whole, or as it was before."""
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(json.dumps(told, indent=1))
    partial.replace(target)
