"""The golden set through one replica's own tokenizer and engine, and the verdict on what comes out.

A replica that is about to take traffic, or other settings, must give what its contract gave before.
What it computes takes no part in limits that requests have; under traffic it waits for its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np

from embedfleet.batching.batcher import Batcher
from embedfleet.errors import GoldenMismatch, Overloaded
from embedfleet.golden import Golden, Outputs, compare, refusal
from embedfleet.messages import Float32Array, TokenIds
from embedfleet.rendering.replica import GoldenSettings
from embedfleet.runtime.loading import LoadedModel

__all__ = ["Verifier", "row_of"]

_log: Final = logging.getLogger("embedfleet.runtime")

GoldenOutputs = Callable[[Golden], Awaitable[Outputs]]
"""What the replica gives for the golden set; a text that is too long for it is left out."""


class Verifier:
    """Holds one model to golden outputs, to the same ones only once.

    Args:
        model: The model, with its contract.
        outputs: Computes what it gives now.
    """

    def __init__(self, model: LoadedModel, outputs: GoldenOutputs) -> None:
        self._model = model
        self._outputs = outputs
        self._passed: GoldenSettings | None = None

    async def __call__(self, wanted: GoldenSettings | None) -> None:
        """Raise unless the model gives what it should.

        Raises:
            GoldenMismatch: It is of another contract or role, or further off than the bound.
        """
        arguments = self._model.arguments
        if wanted is None or wanted == self._passed:
            return
        if arguments.backend == "echo":
            _log.info("%s: not verified; what backend echo gives means nothing", arguments.name)
            return
        golden = wanted.golden
        if golden.role is not arguments.role:
            raise GoldenMismatch(
                f"Golden outputs are those of {golden.role}s, but {arguments.name} is served as "
                f"{arguments.role}. Name others in spec.verification.goldenConfigMapName."
            )
        found = compare(golden, await self._outputs(golden))
        problem = refusal(golden, self._model.contract_hash, found, wanted.bound)
        if problem:
            raise GoldenMismatch(problem)
        self._passed = wanted
        _log.info("%s: gives the golden outputs of %s", arguments.name, golden.contract_hash)


async def row_of(
    batcher: Batcher, token_ids: TokenIds, prefix: TokenIds | None = None
) -> Float32Array:
    """Compute one sequence's row, alone and between the requests of others.

    Raises:
        TooLarge: It could never fit the queue.
        EngineError: The engine cannot compute it.
    """
    while True:
        try:
            submitted = await batcher.submit([token_ids], prefix=prefix)
        except Overloaded as full:
            await asyncio.sleep(full.retry_after_seconds or 1.0)
            continue
        if (error := submitted.errors.get(0)) is not None:
            raise error
        return np.asarray(submitted.rows[0], np.float32)
