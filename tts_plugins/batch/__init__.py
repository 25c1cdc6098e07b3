"""Problems from a file, solved once each, into a file: `tts-plugins batch`."""

from tts_plugins.batch.journal import Journal
from tts_plugins.batch.rows import Row, read_rows
from tts_plugins.batch.runner import BatchReport, BatchWork, run_batch

__all__ = ["BatchReport", "BatchWork", "Journal", "Row", "read_rows", "run_batch"]
