"""An embedder as a model of mteb: its encoder protocol over the engine that serves.

    mteb.evaluate(MtebEmbedder("embedded/embedder"), mteb.get_task("NFCorpus"))

In retrieval only queries carry an instruction; where a task has no queries and documents, every
text does, as in the published models' evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from embedfleet import engine
from embedfleet.engine import EngineOptions
from embedfleet.evaluation.encoding import embed_documents, embed_queries
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.instructions import instruction_of
from embedfleet.messages import Float32Array

__all__ = ["MtebEmbedder"]

_DOCUMENT: Final = "document"
_LOCAL: Final = "local"
_UNKNOWN_REVISION: Final = "no_revision_available"


class MtebEmbedder:
    """Encodes for mteb.

    Args:
        model_name: Folder, `embedded/NAME` or hub name.
        revision: Commit of a hub source; None means the one pinned for a published model.
        device: `cpu`, `cuda` or `cuda:N`; None takes the first GPU if there is one.
        max_document_tokens: The end of longer documents is cut; None means the engine's limit.
        options: Of the engine, instead of `device`.

    Raises:
        CheckpointError: Its files are not what they should be.
        Unsupported: mteb is not installed.
    """

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        max_document_tokens: int | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        chosen = options or EngineOptions(device=device or "auto")
        self.embedder = engine.load_embedder(model_name, revision=revision or "", options=chosen)
        self._max_document_tokens = max_document_tokens
        self.mteb_model_meta = _meta(model_name, revision, self.embedder.engine.info)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **unused: Any,
    ) -> Float32Array:
        """Embed the texts of all batches: (num_texts, native dimension) of unit length.

        Args:
            inputs: Batches with a list of texts in `text`; an empty one is read as a space.
            task_metadata: Tells the task's type, and its own instruction if it has one.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Whether the texts are queries or documents; None where they are neither.
            unused: Such as mteb's batch size: steps are planned by tokens here.
        """
        texts = [text or " " for batch in inputs for text in batch["text"]]
        if prompt_type is not None and prompt_type.value == _DOCUMENT:
            return embed_documents(self.embedder, texts, self._max_document_tokens).vectors
        instruction = instruction_of(task_metadata.type, _own(task_metadata.prompt))
        return embed_queries(self.embedder, texts, instruction).vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Float32Array:
        """Give the cosine of every two rows, (n, m) of vectors of unit length."""
        return _rows(embeddings1) @ _rows(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Float32Array:
        """Give the cosine of each pair of rows, (n,)."""
        return np.asarray((_rows(embeddings1) * _rows(embeddings2)).sum(axis=-1))

    def close(self) -> None:
        """Free the device."""
        self.embedder.close()


def _rows(vectors: Any) -> Float32Array:
    """Take an array, or a tensor on the CPU, as rows."""
    return np.atleast_2d(np.asarray(vectors, np.float32))


def _own(prompt: str | Mapping[str, str] | None) -> str | None:
    return prompt.get("query") if isinstance(prompt, Mapping) else prompt


def _meta(source: str, revision: str | None, info: Any) -> Any:
    """Describe the model; mteb wants names of two parts."""
    model_meta = needed("mteb.models.model_meta")
    path = Path(source)
    name = f"{_LOCAL}/{path.resolve().name}" if path.is_dir() else source
    return model_meta.ModelMeta.create_empty(
        overwrites={
            "name": name,
            "revision": revision or _UNKNOWN_REVISION,
            "embed_dim": info.native_dimension,
            "max_tokens": info.max_tokens,
            "similarity_fn_name": model_meta.ScoringFunction.COSINE,
            "use_instructions": True,
            "open_weights": True,
        }
    )
