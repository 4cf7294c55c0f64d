"""A checkpoint whose files are what they should be, and its tensors one at a time.

Everything that headers can tell is checked before the first tensor is read. Tensors are read into
memory of their own, not mapped: touched pages of a map count as resident until the file is
closed, so a mapped load peaks at twice the weights. A digest of all of them is taken on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from embedfleet.checkpoint.companions import check_companions
from embedfleet.checkpoint.config import ModelConfig, read_config
from embedfleet.checkpoint.layout import EMBEDDING, LM_HEAD, canonical_name, expected_tensors
from embedfleet.checkpoint.shards import StoredTensor, stored_tensors
from embedfleet.errors import CheckpointError
from embedfleet.messages import Role
from embedfleet.prompts import RERANK_PREFIX, RERANK_SUFFIX
from embedfleet.tokenization import Tokenizer
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE

__all__ = ["Checkpoint", "open_checkpoint"]

Bytes = npt.NDArray[np.uint8]

_DTYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(slots=True)
class Checkpoint:
    """Files that have been checked against what the role needs.

    Attributes:
        tokenizer_file: Its `tokenizer.json`.
        stored: The tensors that the role needs, in the order of storage.
    """

    folder: Path
    role: Role
    config: ModelConfig
    tokenizer_file: Path
    stored: Sequence[StoredTensor]
    _digest: str = field(default="", repr=False)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return sum(tensor.num_bytes for tensor in self.stored)

    @property
    def weights_digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes, whatever the sharding and name prefix.

        Known once all tensors were read; asked for earlier, it reads them.
        """
        if not self._digest:
            for _ in self.tensors():
                pass
        return self._digest

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Read every tensor once, under its name without `model.`, in the order of storage.

        A tensor may be kept, since its memory is its own, but not written to before the next one
        is asked for: until then it is being hashed. One is held here at a time; let go of yours
        before the next for the lowest peak.

        Raises:
            CheckpointError: A file changed or ended since it was checked.
        """
        digests: dict[str, str] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="weights-digest") as hashing:
            for file, stored in groupby(self.stored, key=lambda tensor: tensor.file):
                with FileIO(file) as stream:
                    for tensor in stored:
                        data = _read(stream, tensor)
                        digest = hashing.submit(_sha256, data)
                        name = canonical_name(tensor.name)
                        yield name, _as_tensor(data, tensor)
                        digests[name] = digest.result()
                        del data, digest
        self._digest = _combined(self.stored, digests)

    def load_tokenizer(self) -> Tokenizer:
        """Load the tokenizer and check that the model has a row for each id it can give.

        Raises:
            CheckpointError: It is damaged, or of another model.
        """
        tokenizer = Tokenizer.load(self.tokenizer_file)
        needed = tokenizer.highest_ordinary_id
        if self.role is Role.RERANKER:
            needed = max(needed, *tokenizer.encode_template(RERANK_PREFIX + RERANK_SUFFIX))
        elif tokenizer.final_token_id is not None:
            needed = max(needed, tokenizer.final_token_id)
        if needed >= self.config.vocab_size:
            raise CheckpointError(
                f"{self.tokenizer_file} gives ids up to {needed}, but the model has "
                f"{self.config.vocab_size} rows (vocab_size in config.json). Use the tokenizer "
                "that was published with the weights."
            )
        return tokenizer


def open_checkpoint(folder: Path, role: Role) -> Checkpoint:
    """Check a folder in Hugging Face layout by its headers, reading no tensor.

    Args:
        folder: Holds config.json, tokenizer.json and safetensors, sharded with an index or not.
        role: Told by the caller: the files of both roles look alike.

    Raises:
        CheckpointError: Something is missing, unexpected, damaged or of another model.
    """
    check_companions(folder, role)
    config = read_config(folder)
    stored = stored_tensors(folder)
    tokenizer_file = folder / TOKENIZER_FILE
    if not tokenizer_file.is_file():
        raise CheckpointError(
            f"{tokenizer_file} is missing. Copy the file that was published with the weights."
        )
    return Checkpoint(folder, role, config, tokenizer_file, _select(stored, config, role, folder))


def _select(
    stored: Sequence[StoredTensor], config: ModelConfig, role: Role, folder: Path
) -> list[StoredTensor]:
    """Return the tensors that the role needs; refuse any that is missing, extra or misshapen."""
    expected = expected_tensors(config, role)
    found: dict[str, StoredTensor] = {}
    for tensor in stored:
        name = canonical_name(tensor.name)
        if name in found:
            raise CheckpointError(
                f"{tensor.file}: tensor {tensor.name} is there twice, also as {found[name].name} "
                f"in {found[name].file.name}. Keep one of them."
            )
        found[name] = tensor
    for name, shape in expected.items():
        if name not in found:
            why = ": tie_word_embeddings is false, so scores need it" if name == LM_HEAD else ""
            raise CheckpointError(
                f"{folder}: tensor {name} is missing, expected with shape {list(shape)}{why}. "
                "Download the checkpoint again, or check that config.json belongs to it."
            )
        if found[name].shape != shape:
            raise CheckpointError(
                f"{found[name].file}: tensor {name} has shape {list(found[name].shape)}, expected "
                f"{list(shape)}. Check that config.json belongs to these weights."
            )
    # An embedder never uses a head, and a tied one is the embedding table.
    extra = found.keys() - expected.keys() - {LM_HEAD}
    if extra:
        name = min(extra)
        raise CheckpointError(
            f"{found[name].file}: tensor {name} is not part of a Qwen3 model of "
            f"{config.num_layers} layers, and leaving it out could change results. Check that "
            "config.json belongs to these weights."
        )
    if LM_HEAD in found and LM_HEAD not in expected and role is Role.RERANKER:
        _check_tied(found[LM_HEAD], found[EMBEDDING])
    return [tensor for name, tensor in found.items() if name in expected]


def _check_tied(head: StoredTensor, embedding: StoredTensor) -> None:
    """Refuse a head that is called tied but is not the embedding table: its scores would differ."""
    if (head.dtype, head.shape) == (embedding.dtype, embedding.shape) and all(
        ours == theirs for ours, theirs in zip(_chunks(head), _chunks(embedding), strict=True)
    ):
        return
    raise CheckpointError(
        f"{head.file}: {LM_HEAD} differs from {EMBEDDING}, but config.json says "
        "tie_word_embeddings. Set it to false if the head was trained."
    )


def _chunks(tensor: StoredTensor, num_bytes: int = 1 << 24) -> Iterator[bytes]:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for position in range(0, tensor.num_bytes, num_bytes):
            yield stream.read(min(num_bytes, tensor.num_bytes - position))


def _read(stream: FileIO, tensor: StoredTensor) -> Bytes:
    """Read one tensor's bytes into memory of their own."""
    data = np.empty(tensor.num_bytes, np.uint8)
    stream.seek(tensor.start)
    view = data.data
    while view:
        count = stream.readinto(view)
        if not count:
            raise CheckpointError(
                f"{tensor.file} ended inside tensor {tensor.name}: it changed while it was read. "
                "Load again when nothing writes to it."
            )
        view = view[count:]
    return data


def _as_tensor(data: Bytes, tensor: StoredTensor) -> torch.Tensor:
    if not tensor.num_bytes:
        return torch.empty(tensor.shape, dtype=_DTYPES[tensor.dtype])
    return torch.from_numpy(data).view(_DTYPES[tensor.dtype]).view(tensor.shape)


def _sha256(data: Bytes) -> str:
    return hashlib.sha256(data.data).hexdigest()


def _combined(stored: Sequence[StoredTensor], digests: dict[str, str]) -> str:
    lines = sorted(
        f"{name} {tensor.dtype} {'x'.join(map(str, tensor.shape))} {digests[name]}"
        for tensor in stored
        for name in (canonical_name(tensor.name),)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
