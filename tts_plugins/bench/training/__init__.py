"""From runs to training data: what was paid for once, distilled back into a model."""

from tts_plugins.bench.training.files import Exported, export, pool_of
from tts_plugins.bench.training.rows import FORMATS, JUDGES, Filters, Format, Judge, training_rows

__all__ = [
    "FORMATS", "JUDGES", "Exported", "Filters", "Format", "Judge", "export", "pool_of", "training_rows",
]  # fmt: skip
