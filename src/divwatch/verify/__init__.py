"""Correct or not: `verify_completions` turns completions into verified samples, `get_verifier` finds a verifier.

docs/verifiers.md says what each verifier accepts and how far its results can be trusted.
"""

from divwatch.verify.completions import verify_completions
from divwatch.verify.registry import NAMES, check_verifiers, get_verifier
from divwatch.verify.rewards import as_reward
from divwatch.verify.verifier import Verifier

__all__ = ["NAMES", "Verifier", "as_reward", "check_verifiers", "get_verifier", "verify_completions"]
