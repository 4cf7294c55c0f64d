"""Golden outputs: what a contract gave for fixed texts, and whether a replica still gives it."""

from embedfleet.golden.comparison import (
    Comparison,
    Measured,
    compare,
    drift,
    measured,
    refusal,
)
from embedfleet.golden.outputs import GOLDEN_KEY, MAX_DIMENSION, NUM_OUTPUTS, Golden, Outputs
from embedfleet.golden.texts import GOLDEN_DOCUMENTS, GOLDEN_QUERY, GOLDEN_TEXTS, GoldenText

__all__ = [
    "GOLDEN_DOCUMENTS",
    "GOLDEN_KEY",
    "GOLDEN_QUERY",
    "GOLDEN_TEXTS",
    "MAX_DIMENSION",
    "NUM_OUTPUTS",
    "Comparison",
    "Golden",
    "GoldenText",
    "Measured",
    "Outputs",
    "compare",
    "drift",
    "measured",
    "refusal",
]
