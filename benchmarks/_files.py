"""Figures as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: str | Path, reported: Any) -> None:
    """Write `reported` in one step: the file is whole, or as it was before."""
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(json.dumps(reported, indent=1))
    partial.replace(target)
