"""From a replica's arguments to a model that is loaded, warm and knows its contract.

What loads tensors is imported when a model is loaded: building an application imports this module
too, in a process of its own, and must not wait for a tensor library that it never uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedfleet.batching.packing import pack
from embedfleet.engine.base import Engine
from embedfleet.engine.echo import EchoEngine
from embedfleet.fetching.marker import cached
from embedfleet.messages import Role
from embedfleet.rendering.replica import ReplicaArguments
from embedfleet.resources.contract import Contract, contract_hash, contract_of
from embedfleet.tokenization import Tokenizer

if TYPE_CHECKING:
    from embedfleet.checkpoint import Checkpoint

__all__ = ["LoadedModel", "load_model"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to serve.

    Attributes:
        max_tokens: Longest sequence accepted, prompt included.
    """

    arguments: ReplicaArguments
    engine: Engine
    tokenizer: Tokenizer
    contract: Contract
    contract_hash: str
    max_tokens: int

    def summary(self, num_threads: int) -> str:
        """Say what runs, in one line for the log."""
        info = self.engine.info
        kernels = ", ".join(f"{purpose} {kernel}" for purpose, kernel in info.kernels.items())
        return (
            f"{self.arguments.name} runs on {info.device} in {info.dtype} with {num_threads} "
            f"threads; weights {info.weights_bytes / 2**30:.2f} GiB; kernels: {kernels or 'none'}; "
            f"contract {self.contract_hash}"
        )


def load_model(arguments: ReplicaArguments, num_threads: int) -> LoadedModel:
    """Load, warm up and identify a model.

    Raises:
        CheckpointError: Its files are not what they should be.
        InvalidRequest: The arguments ask for what the device or the model cannot do.
    """
    from embedfleet.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(_folder(arguments), arguments.role)
    tokenizer = checkpoint.load_tokenizer()
    engine = _load_engine(arguments, checkpoint, tokenizer, num_threads)
    contract = contract_of(
        arguments.role,
        arguments.source,
        arguments.revision,
        (checkpoint.weights_digest, tokenizer.digest),
        engine.info.dtype,
    )
    _warm_up(engine)
    return LoadedModel(
        arguments=arguments,
        engine=engine,
        tokenizer=tokenizer,
        contract=contract,
        contract_hash=contract_hash(contract),
        max_tokens=engine.info.max_tokens,
    )


def _folder(arguments: ReplicaArguments) -> Path:
    """Find the files; those of a cache are never asked for elsewhere."""
    if arguments.folder:
        return cached(Path(arguments.folder))

    from embedfleet.checkpoint import resolve

    return resolve(arguments.source, arguments.revision)


def _load_engine(
    arguments: ReplicaArguments, checkpoint: Checkpoint, tokenizer: Tokenizer, num_threads: int
) -> Engine:
    if arguments.backend == "echo":
        longest = arguments.max_tokens or checkpoint.config.max_tokens
        return EchoEngine(arguments.role, checkpoint.config.hidden_size, longest)

    from embedfleet.engine.torch.engine import load_engine
    from embedfleet.engine.torch.options import EngineOptions

    return load_engine(
        arguments.role,
        checkpoint.config,
        checkpoint.tensors(),
        EngineOptions(
            device=arguments.device,
            dtype=arguments.weights,
            num_threads=num_threads,
            max_tokens=arguments.max_tokens,
        ),
        score_token_ids=tokenizer.yes_no_ids() if arguments.role is Role.RERANKER else None,
    )


def _warm_up(engine: Engine) -> None:
    """Run short and longer batches once, so that no user pays for allocation and kernel choice."""
    run = engine.embed if engine.info.role is Role.EMBEDDER else engine.score
    for length in (1, 16, 64):
        run(pack([np.zeros(min(length, engine.info.max_tokens), np.int64)]))
