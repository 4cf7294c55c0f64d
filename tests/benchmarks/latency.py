"""What the platform adds to one short query: time through the edge less time in the engine.

The ratio in the last line is milliseconds. One caller, one call at a time. The engine's share is
what each answer says of itself, so both are of the same call; the engine called in this process
shows that the answer does not flatter.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import grpc
import numpy as np
from support.checkpoints import checkpoint
from support.fleets import Running, manifest, running
from support.load import EMBED, TEXT, short_query
from support.report import arguments, begin, conclude, note, table
from support.texts import Writer

from embedfleet.batching.packing import pack
from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.engine.base import Engine
from embedfleet.engine.echo import EchoEngine
from embedfleet.engine.local import load_embedder
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, Role, TokenIds
from embedfleet.tokenization import EmbeddingTokenizer
from embedfleet.wire import embedding_pb2

WARM_UP = 20


@dataclass(frozen=True)
class Times:
    """Milliseconds, one a call.

    Attributes:
        whole: From request to answer, as the caller sees it.
        engine: In the engine, as the answer says.
        waiting: In the replica's queue, as the answer says.
        tokenizing: As the answer says.
    """

    whole: np.ndarray
    engine: np.ndarray
    waiting: np.ndarray
    tokenizing: np.ndarray


def call(fleet: Running, calls: int) -> Times:
    """Ask one query after the other."""
    request, found = short_query(), []
    with grpc.insecure_channel(fleet.state.endpoint) as channel:
        embed = channel.unary_unary(EMBED)
        for _ in range(WARM_UP + calls):
            started = perf_counter()
            answer = embed(request)
            seconds = perf_counter() - started
            said = embedding_pb2.EmbedResponse.FromString(answer).timings
            nanoseconds = (
                said.compute_nanoseconds,
                said.queue_nanoseconds,
                said.tokenize_nanoseconds,
            )
            found.append((seconds * 1e3, *(each / 1e6 for each in nanoseconds)))
    return Times(*np.array(found[WARM_UP:]).T)


def in_process(engine: Engine, ids: TokenIds, calls: int) -> np.ndarray:
    """Call an engine here, in milliseconds."""
    milliseconds = np.empty(WARM_UP + calls)
    for number in range(len(milliseconds)):
        started = perf_counter()
        engine.embed(pack([ids]))
        milliseconds[number] = (perf_counter() - started) * 1e3
    return milliseconds[WARM_UP:]


def row(name: str, times: Times, alone: np.ndarray) -> tuple[object, ...]:
    """Tell one engine's figures."""
    added = times.whole - times.engine
    shown = (times.whole, times.engine, times.waiting, times.tokenizing, alone, added)
    return (name, *(float(np.median(each)) for each in shown), float(np.percentile(added, 99)))


def main() -> None:
    given = arguments(__doc__, calls=2000, model_calls=200)
    begin(
        "latency",
        "ms that the platform adds to one short query through the edge, closed loop, 1 caller",
        "the engine call alone; Serve's default path adds 4.2 ms",
    )
    folder, rows, added = checkpoint(Role.EMBEDDER), [], {}
    model = load_embedder(folder)
    query, text = EmbedOptions(InputType.QUERY), EmbedItem(TEXT)
    tokenizer = EmbeddingTokenizer(Writer().tokenizer, model.engine.info.max_tokens)
    (tokenized,) = tokenizer([text], query, DEFAULT_INSTRUCTION)
    ids = tokenized.token_ids
    echo = EchoEngine(Role.EMBEDDER, model.engine.info.native_dimension, 32_768)
    for backend, engine, calls in (
        ("echo", echo, given.calls),
        ("torch", model.engine, given.model_calls),
    ):
        with running(manifest(Role.EMBEDDER, folder, backend=backend)) as fleet:
            note(f"{backend}: {calls} calls")
            alone = in_process(engine, ids, calls)
            times = call(fleet, calls)
        rows.append(row(backend, times, alone))
        added[backend] = float(np.median(times.whole - times.engine))
    names = ("engine", "p50 ms", "engine says", "queue", "tokens", "in process", "added", "p99")
    table(names, rows)
    note("the ratio is the milliseconds added to a call of the 0.6B shape")
    conclude("latency", added["torch"], "at most 1.5 ms, aim 1.0 ms")


if __name__ == "__main__":
    main()
