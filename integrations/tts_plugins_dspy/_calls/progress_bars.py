"""Progress bars of `dspy.Parallel` in several candidates at once.

DSPy clears tqdm's set of bars whenever a `dspy.Parallel` begins, and a bar that is not shown, which another thread is
making at that moment, then fails with a KeyError as it takes itself out of the set: a candidate would be lost for it.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import tqdm  # type: ignore[import-untyped]  # DSPy depends on it


class _Bars(WeakSet[Any]):
    def remove(self, item: Any) -> None:
        """Remove it, if it is there."""
        self.discard(item)


def allow_side_by_side() -> None:
    """Let bars be made while others clear the set of them."""
    if not isinstance(tqdm.tqdm._instances, _Bars):
        tqdm.tqdm._instances = _Bars(tqdm.tqdm._instances)
