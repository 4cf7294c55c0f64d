"""`embedfleet demo`: a fleet from nothing to searches and back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import resources

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from embedfleet.cli.output import reporter
from embedfleet.client import Client
from embedfleet.config import Settings
from embedfleet.local.temporary import temporary_fleet
from embedfleet.resources import load_manifests

__all__ = ["demo"]

EMBEDDER = "docs"
RERANKER = "relevance"
FIRST_STAGE = 10
SHOWN = 3


@click.command()
@click.option(
    "--questions",
    default=4,
    show_default=True,
    type=click.IntRange(1, 20),
    help="How many are asked.",
)
def demo(questions: int) -> None:
    """Start a fleet, search a small corpus, stop.

    The models come with the package. Uses free ports and no network, and leaves nothing behind.
    """
    console = Console(highlight=False)
    with resources.as_file(resources.files("embedfleet.embedded") / "fleet.yaml") as manifest:
        manifests = load_manifests([manifest])
    with temporary_fleet(manifests, Settings.load().environment, reporter(console)) as state:
        console.print(f"Fleet {state.name} answers at {state.endpoint}")
        _search_all(state.endpoint, console, questions)
    console.print("Everything is stopped.")


@dataclass(frozen=True, slots=True)
class _Passage:
    """One text of the demo's corpus."""

    id: str
    text: str


def _lines(name: str) -> list[dict[str, str]]:
    text = resources.files("embedfleet.embedded").joinpath("demo", name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def _load_corpus() -> list[_Passage]:
    """Read the passages that come with the package."""
    return [_Passage(line["id"], line["text"]) for line in _lines("corpus.jsonl")]


def _load_questions() -> list[tuple[str, str]]:
    """Read questions, each with the id of the passage that answers it."""
    return [(line["question"], line["answer"]) for line in _lines("questions.jsonl")]


def _search_all(endpoint: str, console: Console, num_questions: int) -> None:
    """Index the corpus through gRPC, then embed, search and rerank a few questions."""
    corpus = _load_corpus()
    with Client(endpoint) as client:
        started = time.perf_counter()
        index = client.embed_documents(EMBEDDER, [passage.text for passage in corpus])
        seconds = time.perf_counter() - started
        served = index.provenance
        console.print(
            f"\nIndexed {len(corpus)} passages, {index.usage.input_tokens} tokens, "
            f"{index.vectors.shape[1]} dimensions in {seconds:.2f} s; contract "
            f"[bold]{served.contract_hash}[/bold]."
        )
        for question, _ in _load_questions()[:num_questions]:
            console.print(_search(client, question, corpus, index.vectors))
    console.print(
        "The models that come with the package are small: 2 and 4 layers, 20 MB together. Name a "
        "published model in the manifest for better results."
    )


def _search(client: Client, question: str, corpus: list[_Passage], vectors: np.ndarray) -> Table:
    started = time.perf_counter()
    query = client.embed_queries(EMBEDDER, [question]).vectors[0]
    embedded = time.perf_counter()
    cosines = vectors @ query
    nearest = np.argsort(-cosines, kind="stable")[:FIRST_STAGE]
    ranking = client.rerank(RERANKER, question, [corpus[i].text for i in nearest], top_n=SHOWN)
    done = time.perf_counter()
    table = Table(
        title=f"[bold]{question}[/bold]",
        caption=f"embed {1e3 * (embedded - started):.1f} ms, rerank {FIRST_STAGE} passages "
        f"{1e3 * (done - embedded):.1f} ms",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("score", justify="right")
    table.add_column("cosine", justify="right")
    table.add_column("passage")
    for result in ranking.results:
        found = int(nearest[result.index])
        table.add_row(f"{result.score:.3f}", f"{cosines[found]:.3f}", corpus[found].text)
    return table
