"""One step: the sequences of one engine call, of several requests, packed.

A step whose result is not finite, or that does not fit the device, is halved until only the guilty
sequences are left with the error. Nothing here decides what runs or knows who waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from embedfleet.batching.lanes import Request
from embedfleet.batching.packing import PackedBatch, pack
from embedfleet.batching.planner import Pending
from embedfleet.errors import EmbedfleetError, EngineError, NonFiniteResult, OutOfMemory
from embedfleet.messages import Float32Array, Priority, TokenIds

__all__ = ["Outcome", "Run", "Step", "StepAbandoned", "YieldPoint", "outcomes"]

YieldPoint = Callable[[], None]
"""Called by an engine between layers; may run another batch on it before it returns, or raise."""

Run = Callable[[PackedBatch, YieldPoint | None], Float32Array]
"""An engine's one operation: a batch in, one row a sequence out, in order."""

Error = TypeVar("Error", bound=EmbedfleetError)

_log = logging.getLogger(__name__)


class StepAbandoned(Exception):
    """Raised through the engine when nobody waits for the step any more."""


@dataclass(slots=True, eq=False)
class Step:
    """Sequences that run together.

    Attributes:
        parts: Each sequence with its request, in the batch's order once packed.
        may_nest: Whether interactive work may still run inside this step.
        nested_seconds: Time that other steps ran inside this one.
    """

    priority: Priority
    parts: list[tuple[Request, Pending]]
    batch: PackedBatch | None = None
    may_nest: bool = True
    nested_seconds: float = 0.0

    @property
    def num_tokens(self) -> int:
        """Tokens computed; before packing without prefixes."""
        if self.batch is not None:
            return self.batch.num_tokens
        return sum(pending.num_tokens for _, pending in self.parts)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for any of it."""
        return all(request.done for request, _ in self.parts)

    def pack(self) -> PackedBatch:
        """Lay the step end to end, equal prefixes and then equal lengths next to each other."""
        if self.batch is None:
            prefixes: dict[bytes | None, int] = {None: -1}
            segments: list[TokenIds] = []
            for request, pending in self.parts:
                if pending.prefix not in prefixes and request.work.prefix is not None:
                    prefixes[pending.prefix] = len(segments)
                    segments.append(request.work.prefix)
            if len(self.parts) > 1:
                # A new list: sorting in place would show callers that cancel an empty one.
                self.parts = sorted(
                    self.parts, key=lambda part: (prefixes[part[1].prefix], -part[1].num_tokens)
                )
            self.batch = pack(
                [request.work.sequences[pending.position] for request, pending in self.parts],
                segments,
                [prefixes[pending.prefix] for _, pending in self.parts] if segments else None,
            )
        return self.batch

    def halves(self) -> tuple[Step, Step]:
        """Split a step of at least two sequences."""
        middle = len(self.parts) // 2
        return (
            Step(self.priority, self.parts[:middle]),
            Step(self.priority, self.parts[middle:]),
        )


Outcome = tuple[Step, Float32Array | EmbedfleetError]
"""A step or a part of one, with a row for each sequence or the error that all of it met."""


def outcomes(run: Run, step: Step, yield_point: YieldPoint | None) -> Iterator[Outcome]:
    """Run a step, halving it around sequences that cannot be computed.

    Raises:
        StepAbandoned: The yield point gave the step up.
    """
    todo = [step]
    while todo:
        part = todo.pop()
        result = _attempt(run, part, yield_point)
        if isinstance(result, NonFiniteResult | OutOfMemory) and len(part.parts) > 1:
            todo.extend(reversed(part.halves()))
        else:
            yield part, result


def _attempt(
    run: Run, part: Step, yield_point: YieldPoint | None
) -> Float32Array | EmbedfleetError:
    try:
        rows = run(part.pack(), yield_point)
    except StepAbandoned:
        raise
    except EmbedfleetError as error:
        return _without_frames(error)
    except Exception as error:
        _log.exception("a step of %d sequences failed unexpectedly", len(part.parts))
        return _wrapped(error)
    if len(rows) != len(part.parts):
        return EngineError(
            f"This is a bug: the engine returned {len(rows)} rows for {len(part.parts)} sequences."
        )
    return rows


def _wrapped(cause: Exception) -> EngineError:
    error = EngineError(f"The engine failed: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return _without_frames(error)


def _without_frames(error: Error) -> Error:
    """Let go of the failed call's arrays: halves need the memory and callers keep the error."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error
