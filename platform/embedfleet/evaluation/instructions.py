"""Which instruction a kind of task is asked with; the first two are the published models' own.

Sources: arXiv 2506.05176 and the evaluation code of QwenLM/Qwen3-Embedding for retrieval,
similarity and bitexts; the others say in the same form what their task is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from embedfleet.catalog import DEFAULT_INSTRUCTION

__all__ = ["BITEXT_INSTRUCTION", "INSTRUCTIONS", "SIMILARITY_INSTRUCTION", "instruction_of"]

SIMILARITY_INSTRUCTION: Final = "Retrieve semantically similar text"
BITEXT_INSTRUCTION: Final = "Retrieve parallel sentences"

INSTRUCTIONS: Final[Mapping[str, str]] = {
    "Retrieval": DEFAULT_INSTRUCTION,
    "Reranking": DEFAULT_INSTRUCTION,
    "InstructionRetrieval": DEFAULT_INSTRUCTION,
    "InstructionReranking": DEFAULT_INSTRUCTION,
    "STS": SIMILARITY_INSTRUCTION,
    "PairClassification": SIMILARITY_INSTRUCTION,
    "Summarization": "Given a summary, retrieve semantically similar summaries",
    "BitextMining": BITEXT_INSTRUCTION,
    "Classification": "Classify the given text",
    "MultilabelClassification": "Classify the given text by all labels that apply",
    "Clustering": "Identify the topic of the given text",
    "Regression": "Represent the given text so that its score can be told",
}
"""By mteb's name of a task's type."""


_FIXED: Final = ("STS", "PairClassification", "BitextMining")


def instruction_of(task_type: str, own: str | None = None) -> str:
    """Give the instruction for a type of task.

    Args:
        task_type: As mteb spells it.
        own: The task's own instruction. It is closer to the task than its type's, except where
            the published models were evaluated with one for all tasks of the type.
    """
    if own and task_type not in _FIXED:
        return own
    return INSTRUCTIONS.get(task_type, DEFAULT_INSTRUCTION)
