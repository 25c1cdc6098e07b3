"""The page, the picture and the data that show what a bench measured."""

from tts_plugins.bench.report._sections import flops_of, tokens_of
from tts_plugins.bench.report.page import (
    Placing,
    Run,
    as_dict,
    check_png,
    cost_of,
    load,
    page,
    picture,
    png_of,
    remarks,
    share_words,
)

__all__ = [
    "Placing", "Run", "as_dict", "check_png", "cost_of", "flops_of", "load", "page", "picture", "png_of", "remarks",
    "share_words", "tokens_of",
]  # fmt: skip
