"""What adapters for frameworks share: the settings of a search, native objects as texts, functions as verifiers.

An integration takes the settings as its users give them, makes `SearchSettings` of them once, changes these by what a
single call says, and hands them to `solve`. Where the framework makes the calls, the model is a `MeteredModel`.
"""

from tts_plugins._calls.charging import cause_for, causes_of
from tts_plugins._concurrency.forks import lock, renew
from tts_plugins._internal.chat_messages import deltas_of, pieces_of, text_of
from tts_plugins._internal.config import check_count
from tts_plugins._internal.http_errors import shown_address
from tts_plugins._internal.signatures import called_as, check_names, required_parameters, signature_of, takes
from tts_plugins._internal.threads import call_user, in_thread
from tts_plugins._internal.values import as_plain_number, field, fields_of, is_number, is_whole, listed
from tts_plugins.adapters._all_failed import original_of, raised_for
from tts_plugins.adapters._charge import charge_of
from tts_plugins.adapters._error_messages import described
from tts_plugins.adapters._exception_passthrough import Passing
from tts_plugins.adapters._metered import (
    VARIANT,
    Attempts,
    CandidateLost,
    MeteredModel,
    Variant,
    meter_here,
    search_here,
    setting,
)
from tts_plugins.adapters._options import AdapterOptions, ProfileOptions, SearchOptions, StrategyOptions
from tts_plugins.adapters._search import BaseSearch
from tts_plugins.adapters._settings import (
    LIMITS,
    SearchSettings,
    as_budget,
    as_strategy,
)
from tts_plugins.adapters._shapes import candidates_of
from tts_plugins.adapters._texts import Text, Unparsed, answer_key, as_key, parsed_only
from tts_plugins.adapters._verifying import FunctionVerifier, Judging, metered_verifier
from tts_plugins.engine.solve import default_profile
from tts_plugins.models.stepping import Stepping
from tts_plugins.options import check_placed
from tts_plugins.strategies.escalation import REVISING, STEPWISE
from tts_plugins.verifiers.callable import as_score, as_verifier, was_given

__all__ = [
    "LIMITS", "REVISING", "STEPWISE", "VARIANT", "AdapterOptions", "Attempts", "BaseSearch", "CandidateLost",
    "FunctionVerifier", "Judging", "MeteredModel", "Passing", "ProfileOptions", "SearchOptions", "SearchSettings",
    "Stepping", "StrategyOptions", "Text", "Unparsed", "Variant", "answer_key", "as_budget", "as_key",
    "as_plain_number", "as_score", "as_strategy", "as_verifier", "call_user", "called_as", "candidates_of", "cause_for",
    "causes_of", "charge_of", "check_count", "check_names", "check_placed", "default_profile", "deltas_of", "described",
    "field", "fields_of", "in_thread", "is_number", "is_whole", "listed", "lock", "meter_here", "metered_verifier",
    "original_of", "parsed_only", "pieces_of", "raised_for", "renew", "required_parameters", "search_here", "setting",
    "shown_address", "signature_of", "takes", "text_of", "was_given",
]  # fmt: skip
