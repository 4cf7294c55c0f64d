"""Memory of a replica: at one very long input over its weights, and over minutes of mixed load.

The longest input is run at the 0.6B shape with fewer layers (`--layers 28` for all): what a step
needs beside the weights is one layer's work and the residual stream, the same whatever the number
of layers, so the measured growth is added to what a replica of 28 layers holds when idle.
"""

from __future__ import annotations

import random
import threading
from importlib import resources
from time import monotonic, sleep

import psutil
from support.arithmetic import weights_bytes
from support.checkpoints import checkpoint
from support.fleets import Running, manifest, running
from support.report import arguments, begin, conclude, note, table
from support.texts import Writer

from embedfleet.checkpoint.config import read_config
from embedfleet.client import Client, ClientConfig
from embedfleet.errors import EmbedfleetError
from embedfleet.messages import Role

MIB = 2**20
LAYERS = 28
WARM_SHARE = 0.2
"""Allocators and caches fill up first; growth counts from then on."""


class Peak:
    """The most memory that a process held while the block ran."""

    def __init__(self, process: psutil.Process) -> None:
        self.rss = 0
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            self.rss = max(self.rss, self._process.memory_info().rss)


def idle_bytes(fleet: Running) -> int:
    """Return what a warm replica holds."""
    with Client(fleet.state.endpoint) as client:
        client.embed_queries("m", ["warm"])
    return fleet.replica().memory_info().rss


def long_input(layers: int, tokens: int) -> tuple[int, int]:
    """Return resident bytes before, and the most during, one input of so many tokens."""
    with running(manifest(Role.EMBEDDER, checkpoint(Role.EMBEDDER, layers))) as fleet:
        idle, text = idle_bytes(fleet), Writer().text(tokens - 1)
        config = ClientConfig(timeout_seconds=7200)
        with Client(fleet.state.endpoint, config=config) as client, Peak(fleet.replica()) as peak:
            result = client.embed_documents("m", [text])
        note(
            f"{layers} layers: {result.usage.input_tokens} tokens in "
            f"{result.timings.compute_seconds:.0f} s; resident {idle / MIB:.0f} MiB before, "
            f"{peak.rss / MIB:.0f} at most"
        )
    return idle, peak.rss


def one_call(client: Client, rng: random.Random, texts: list[str]) -> None:
    """Do one of the things that clients do, mistakes included."""
    kind = rng.randrange(6)
    some = rng.sample(texts, rng.choice((1, 2, 8, 32)))
    try:
        if kind == 0:
            client.embed_queries("docs", some[:1])
        elif kind == 1:
            client.embed_documents("docs", some, priority="BULK", output_type="INT8")
        elif kind == 2:
            client.rerank("relevance", "which moon", some)
        elif kind == 3:
            client.tokenize("docs", some, input_type="DOCUMENT")
        elif kind == 4:
            client.embed_documents("docs", ["", *some])
        else:
            client.embed_documents("docs", some, timeout=rng.choice((0.002, 0.01)))
    except EmbedfleetError:
        pass


def state_of(fleet: Running) -> dict[str, tuple[int, int, int]]:
    """Return bytes, open files and threads of every replica."""
    found = {}
    for name in ("docs", "relevance"):
        process = fleet.replica(name)
        with process.oneshot():
            found[name] = (process.memory_info().rss, process.num_fds(), process.num_threads())
    return found


def growth(seconds: float) -> list[tuple[object, ...]]:
    """Put mixed load on the embedded models; tell each replica's state early and late."""
    text = (resources.files("embedfleet.embedded") / "fleet.yaml").read_text()
    texts = Writer().texts([3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128, 200, 300, 400, 500] * 3)
    rng, calls, early = random.Random(0), 0, None
    with running(text) as fleet:
        started = monotonic()
        with Client(fleet.state.endpoint) as client:
            while (passed := monotonic() - started) < seconds:
                one_call(client, rng, texts)
                calls += 1
                if early is None and passed > WARM_SHARE * seconds:
                    early = state_of(fleet)
        sleep(2)
        late = state_of(fleet)
    note(f"{calls} calls in {seconds:.0f} s")
    return [
        (name, *(value for pair in zip(early[name], late[name], strict=True) for value in pair))
        for name in late
    ]


def main() -> None:
    given = arguments(__doc__, layers=4, tokens=32_768, seconds=600.0)
    begin(
        "memory",
        f"resident bytes of a replica over its weights at one input of {given.tokens} tokens, and "
        f"growth over {given.seconds:.0f} s of mixed load",
        "nobody: the figures are stated",
    )
    before, most = long_input(given.layers, given.tokens)
    whole = before
    if given.layers != LAYERS:
        with running(manifest(Role.EMBEDDER, checkpoint(Role.EMBEDDER, LAYERS))) as fleet:
            whole = idle_bytes(fleet)
    needed = most - before
    weights = weights_bytes(read_config(checkpoint(Role.EMBEDDER, LAYERS)))
    rows = [
        (f"weights, {LAYERS} layers", weights / MIB, 1.0),
        ("idle replica", whole / MIB, whole / weights),
        (f"one input of {given.tokens} tokens needs", needed / MIB, needed / weights),
        ("replica at that input", (whole + needed) / MIB, (whole + needed) / weights),
    ]
    table(("resident", "MiB", "over weights"), rows)
    found = growth(given.seconds)
    rows = [
        (name, early / MIB, late / MIB, f"{100 * (late / early - 1):+.2f} %", *map(str, counts))
        for name, early, late, *counts in found
    ]
    names = ("replica", "MiB early", "MiB late", "growth", "files", "late", "threads", "late")
    table(names, rows)
    note(f"early is after {WARM_SHARE:.0%} of the time; growth is to stay below 2 %")
    conclude("memory", (whole + needed) / weights, "stated")


if __name__ == "__main__":
    main()
