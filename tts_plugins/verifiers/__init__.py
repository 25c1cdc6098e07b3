"""What scores candidates."""

from tts_plugins._internal.signatures import explain_calls as _explain_calls
from tts_plugins.errors import SandboxUnavailable
from tts_plugins.verifiers._sandbox.probe import Sandbox, find_sandbox, sandbox_kind
from tts_plugins.verifiers.agreement import AnswerAgreement
from tts_plugins.verifiers.callable import CallableVerifier
from tts_plugins.verifiers.checks.json_schema import JSONSchemaVerifier
from tts_plugins.verifiers.checks.regex import RegexVerifier
from tts_plugins.verifiers.checks.tool_call import ToolCallVerifier
from tts_plugins.verifiers.code.code_tests import CodeTests
from tts_plugins.verifiers.code.sql_query import SQLVerifier
from tts_plugins.verifiers.combined.calibrated import Calibrated, Calibration
from tts_plugins.verifiers.combined.cascade import Cascade, Veto
from tts_plugins.verifiers.combined.ensemble import Ensemble
from tts_plugins.verifiers.grouping.math_groups import MathGroups
from tts_plugins.verifiers.grouping.semantic_groups import SemanticGroups
from tts_plugins.verifiers.judges.canaries import MASTER_KEYS, Canaries, Screen
from tts_plugins.verifiers.judges.generative import GenerativeVerifier
from tts_plugins.verifiers.judges.grounded import Grounded
from tts_plugins.verifiers.judges.llm_judge import LLMJudge
from tts_plugins.verifiers.judges.pairwise_judge import PairwiseJudge
from tts_plugins.verifiers.learned import LearnedHead, LearnedVerifier
from tts_plugins.verifiers.math_answer import MathAnswer
from tts_plugins.verifiers.presets import PRESETS, preset
from tts_plugins.verifiers.process import RewardFamily
from tts_plugins.verifiers.process.process_http import ProcessVerifierHTTP
from tts_plugins.verifiers.process.process_judge import ProcessJudge
from tts_plugins.verifiers.process.process_transformers import ProcessVerifierTransformers
from tts_plugins.verifiers.recorded import RecordedVerifier
from tts_plugins.verifiers.similar import Similar

__all__ = [
    "MASTER_KEYS", "PRESETS", "AnswerAgreement", "Calibrated", "Calibration", "CallableVerifier", "Canaries", "Cascade",
    "CodeTests", "Ensemble", "GenerativeVerifier", "Grounded", "JSONSchemaVerifier", "LLMJudge", "LearnedHead",
    "LearnedVerifier", "MathAnswer", "MathGroups", "PairwiseJudge", "ProcessJudge", "ProcessVerifierHTTP",
    "ProcessVerifierTransformers", "RecordedVerifier", "RegexVerifier", "RewardFamily", "SQLVerifier", "Sandbox",
    "SandboxUnavailable", "Screen", "SemanticGroups", "Similar", "ToolCallVerifier", "Veto", "find_sandbox", "preset",
    "sandbox_kind",
]  # fmt: skip

_explain_calls(globals()[name] for name in __all__)
