"""What embedders and rerankers share on a replica: settings, batcher, threads for tokenizing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from embedfleet.batching.batcher import Batcher
from embedfleet.batching.niceness import give_way
from embedfleet.batching.planner import Limits
from embedfleet.batching.stats import Stats
from embedfleet.errors import (
    ContractMismatch,
    EmbedfleetError,
    InvalidRequest,
    Overloaded,
    TooLarge,
)
from embedfleet.golden import Golden, Outputs
from embedfleet.messages import InputType, Priority, Provenance, Role, Truncation
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime.description import ModelDescription
from embedfleet.runtime.loading import LoadedModel
from embedfleet.runtime.verification import Verifier
from embedfleet.tokenization import Tokenized

__all__ = ["ModelRuntime", "TokenizeRequest"]

Result = TypeVar("Result")

INLINE_CHARACTERS: Final = 4_096
"""Up to this size is tokenized on the event loop: that takes less time than a thread hop."""

MAX_TOKENIZING_CHARACTERS: Final = 32_000_000
"""What may wait to be tokenized: about a second of one core. What is refused for a full queue was
tokenized in vain, so a storm of it must stop here."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """What suits a kind of device.

    Attributes:
        batch_tokens: Of a bulk step: enough to fill the device.
        interactive_tokens: Of an interactive step: few enough that the next query need not wait.
        stuck_after_seconds: Longest time that one layer of the longest text may take.
    """

    batch_tokens: int
    interactive_tokens: int
    stuck_after_seconds: float


CPU_STEPS: Final = _Steps(1_024, 512, 900.0)
GPU_STEPS: Final = _Steps(16_384, 2_048, 120.0)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Texts whose exact token ids are asked for; `query` is a reranker's."""

    texts: Sequence[str]
    input_type: InputType | None
    instruction: str | None
    query: str
    truncation: Truncation


class ModelRuntime(ABC):
    """A loaded model behind its batcher.

    Use from one event loop: `start` first, `close` last.
    """

    def __init__(self, model: LoadedModel, settings: ReplicaSettings) -> None:
        self._model = model
        self.settings = settings
        engine = model.engine
        run = engine.embed if engine.info.role is Role.EMBEDDER else engine.score
        self._batcher = Batcher(
            run,
            self._limits(settings),
            name=model.arguments.name,
            parallel=engine.info.parallel,
        )
        self._threads = {
            Priority.INTERACTIVE: ThreadPoolExecutor(1, "tokenize"),
            Priority.BULK: ThreadPoolExecutor(1, "tokenize-bulk", give_way),
        }
        self._started = False
        self._tokenizing = 0
        self._verify = Verifier(model, self.golden_outputs)

    @property
    def arguments(self) -> ReplicaArguments:
        """What the replica was built from."""
        return self._model.arguments

    @property
    def provenance(self) -> Provenance:
        """What stands on every result."""
        model = self._model
        return Provenance(model.arguments.name, model.contract.revision, model.contract_hash)

    def start(self) -> None:
        """Start the engine's thread on the running loop; later calls do nothing."""
        if not self._started:
            self._started = True
            self._batcher.start()

    async def close(self) -> None:
        """Finish what waits, then free the device."""
        await self._batcher.close()
        for threads in self._threads.values():
            threads.shutdown()
        self._model.engine.close()

    async def reconfigure(self, settings: ReplicaSettings) -> None:
        """Use other settings from the next request on; if they are refused, stay as it is.

        Raises:
            InvalidManifest: Requests that ask for nothing would fail with this model.
            GoldenMismatch: The model does not give their golden outputs.
        """
        self._check_settings(settings)
        await self._verify(settings.golden)
        self.settings = settings
        self._batcher.reconfigure(self._limits(settings))

    def check_health(self) -> None:
        """Raise if the engine is dead, stuck or failing."""
        self._batcher.check_health()

    def stats(self) -> Stats:
        """Count what waits, what runs and what was done."""
        return self._batcher.stats()

    def description(self) -> ModelDescription:
        """Tell what is served, and how."""
        model = self._model
        return ModelDescription(
            arguments=model.arguments,
            settings=self.settings,
            engine=model.engine.info,
            contract=model.contract,
            contract_hash=model.contract_hash,
            max_tokens=model.max_tokens,
        )

    @abstractmethod
    async def tokenize(self, request: TokenizeRequest) -> list[Tokenized | EmbedfleetError]:
        """Show the exact ids that each text would be computed as."""

    @abstractmethod
    async def golden_outputs(self, golden: Golden) -> Outputs:
        """Compute the golden set in the form of `golden`: its instruction and dimension."""

    @abstractmethod
    def _check_settings(self, settings: ReplicaSettings) -> None:
        """Raise InvalidManifest unless the model can do what settings make the default."""

    def _limits(self, settings: ReplicaSettings) -> Limits:
        steps = CPU_STEPS if self._model.engine.info.device == "cpu" else GPU_STEPS
        batching = settings.batching
        max_batch_tokens = batching.max_batch_tokens or steps.batch_tokens
        return Limits(
            max_batch_tokens=max_batch_tokens,
            max_interactive_tokens=min(steps.interactive_tokens, max_batch_tokens),
            max_queued_tokens=batching.max_queued_tokens,
            max_queued_items=batching.max_queued_items,
            stuck_after_seconds=steps.stuck_after_seconds,
        )

    async def _off_loop(
        self, size: int, work: Callable[[], Result], priority: Priority = Priority.INTERACTIVE
    ) -> Result:
        """Run tokenization here if it is short, else on a thread of its priority.

        Args:
            size: Characters that are encoded, a prompt as often as it is, and ids that are checked.
            work: The tokenization.
            priority: Of the request.

        Raises:
            Overloaded: Too much waits to be tokenized already.
        """
        if size <= INLINE_CHARACTERS:
            return work()
        if self._tokenizing and self._tokenizing + size > MAX_TOKENIZING_CHARACTERS:
            raise Overloaded(
                f"{self._tokenizing:,} characters wait to be tokenized and this request adds "
                f"{size:,}; the limit is {MAX_TOKENIZING_CHARACTERS:,}. Try again shortly.",
                retry_after_seconds=1.0,
            )
        self._tokenizing += size
        try:
            threads = self._threads[priority]
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        finally:
            self._tokenizing -= size

    def _check_contract(self, expected: str) -> None:
        if expected and expected != self._model.contract_hash:
            raise ContractMismatch(
                f"expected_contract_hash is {expected}, but model {self.arguments.name!r} serves "
                f"{self._model.contract_hash}: its results do not belong with yours. Embed again "
                "with this model, or serve the one that made your index.",
                field="expected_contract_hash",
            )

    def _check_count(self, field: str, count: int) -> None:
        limit = self.settings.batching.max_items_per_request
        if not 1 <= count <= limit:
            raise InvalidRequest(
                f"{field} has {count:,} entries; a request takes 1 to {limit:,}. "
                + ("Send at least one." if not count else "Split it into several requests."),
                field=field,
            )

    def _check_answer(self, num_tokens: int) -> None:
        """Refuse to show more ids than the queue would take of the same texts."""
        limit = self.settings.batching.max_queued_tokens
        if num_tokens > limit:
            raise TooLarge(
                f"texts take {num_tokens:,} tokens with the prompt of each; the queue holds at "
                f"most {limit:,} (spec.batching.maxQueuedTokens). Send fewer texts at a time.",
                field="texts",
            )

    def _check_instruction(self, instruction: str | None) -> None:
        if instruction is not None and not self.settings.allow_instruction_override:
            raise InvalidRequest(
                f"instruction is {instruction!r}, but model {self.arguments.name!r} allows only "
                "its default. Leave it out.",
                field="instruction",
            )
