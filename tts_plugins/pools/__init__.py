"""Recorded samples, on which strategies are replayed without calling a model; one gzipped JSONL file for each pool.

The first line describes the pool, `{"format": "tts-pool", "version": 1, "model": …, "dataset": …, …}`; each further
line is a problem with its candidates. Keys that this version does not know are kept in `extra` and written back.
"""

from tts_plugins.pools._pool import Pool
from tts_plugins.pools._reading import SQUASHES
from tts_plugins.pools._records import FORMAT, VERSION, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.pools._writing import PoolWriter, header_line, problem_line

__all__ = [
    "FORMAT", "SQUASHES", "VERSION", "Pool", "PoolCandidate", "PoolHeader", "PoolProblem", "PoolWriter", "header_line",
    "problem_line",
]  # fmt: skip
