"""`embedfleet evaluate`: how good models are on your data, beside BM25, with confidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from embedfleet.cli.evaluation_options import Named, Numbers, OutputTypes
from embedfleet.cli.evaluation_tables import print_report
from embedfleet.cli.output import note, progress
from embedfleet.cli.output_files import try_file, write_file
from embedfleet.engine import EngineOptions
from embedfleet.errors import EmbedfleetError
from embedfleet.evaluation.beir import read_dataset
from embedfleet.evaluation.comparing import MEAN, compare
from embedfleet.evaluation.evaluating import evaluate as run
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.lexical import BM25
from embedfleet.evaluation.mteb_tasks import TaskScores, find_tasks, load_tasks, run_tasks
from embedfleet.evaluation.plotting import plot
from embedfleet.evaluation.report import Asked, report
from embedfleet.evaluation.settings import Candidate, Data, Settings, Watch
from embedfleet.evaluation.similarity import read_pairs

__all__ = ["evaluate"]

DEFAULTS = Settings()
OF_EMBEDDERS = ("similarity", "mteb", "ablate", "dimensions")


@click.command()
@click.option(
    "-m",
    "--model",
    "models",
    type=Named(),
    multiple=True,
    metavar="[LABEL=]SOURCE",
    help="Embedder: folder, embedded/NAME or hub name. Repeatable, to compare.",
)
@click.option(
    "-r",
    "--reranker",
    "rerankers",
    type=Named(),
    multiple=True,
    metavar="[LABEL=]SOURCE",
    help="Second stage over each embedder's best documents. Repeatable.",
)
@click.option(
    "-d",
    "--data",
    type=Named(),
    multiple=True,
    metavar="[NAME=]FOLDER",
    help="corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv. Repeatable.",
)
@click.option(
    "--similarity",
    type=Named(),
    multiple=True,
    metavar="[NAME=]FILE",
    help="Pairs text_a, text_b, score as .tsv or .jsonl. Repeatable.",
)
@click.option(
    "--mteb",
    multiple=True,
    metavar="TASK",
    help="Task of mteb, by its own code and data. Repeatable.",
)
@click.option("--split", default="test", show_default=True, help="Which file in qrels/.")
@click.option(
    "--dimensions",
    type=Numbers(),
    metavar="N,...",
    help="Of vectors; otherwise 32 and its doubles up to the model's own.",
)
@click.option(
    "--output-types",
    type=OutputTypes(),
    default=",".join(DEFAULTS.output_types),
    show_default=True,
    metavar="TYPE,...",
    help="How vectors are stored; also BINARY+INT8.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=DEFAULTS.depth,
    show_default=True,
    help="Documents a reranker orders anew for each query.",
)
@click.option("--max-queries", type=click.IntRange(min=1), help="A sample of so many a folder.")
@click.option(
    "--max-document-tokens",
    type=click.IntRange(min=2),
    default=DEFAULTS.max_document_tokens,
    show_default=True,
    help="The end of longer documents is cut; the report counts them.",
)
@click.option("--instruction", help="Instead of the models' own.")
@click.option(
    "--ablate",
    type=click.Choice(["instruction"]),
    multiple=True,
    help="Measure embedders without it too.",
)
@click.option(
    "--baseline",
    default=BM25,
    show_default=True,
    metavar="LABEL",
    help="What others are compared with: bm25 or a model's label.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."
)
@click.option(
    "--num-threads",
    type=click.IntRange(min=1),
    help="Of the CPU; otherwise every core. Fewer where other work keeps cores busy.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the whole report here.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write quality against bytes per vector here, as PNG.",
)
def evaluate(**given: Any) -> None:
    """Measure models on your data.

    Retrieval by every model, dimension and output type, reranking over it, BM25 beside it, and 95 %
    confidence by bootstrap for every value and difference.
    """
    models, rerankers = (_candidates(given[name]) for name in ("models", "rerankers"))
    _check(given, models, rerankers)
    settings = Settings(
        given["dimensions"],
        given["output_types"],
        given["depth"],
        given["max_document_tokens"],
        ablate_instruction="instruction" in given["ablate"],
        options=EngineOptions(given["device"], given["dtype"], given["num_threads"]),
    )
    if given["instruction"] is not None:
        settings = replace(settings, instruction=given["instruction"])
    data, tasks = _data(given), find_tasks(given["mteb"])
    load_tasks(tasks)
    results = run(data, (models, rerankers), settings, Watch(progress, note))
    sources = {each.label: each.source for each in (*models, *rerankers)}
    asked = Asked(settings, sources, given["baseline"], given["seed"])
    compared = compare(results, asked.baseline, asked.seed)
    scores = TaskScores() if results.failure else run_tasks(tasks, models, settings)
    failure = results.failure or scores.failure
    _leave(report(asked, results, compared, scores.records), given, failure)


def _leave(made: dict[str, Any], given: dict[str, Any], failure: EmbedfleetError | None) -> None:
    """Print a report and write its files: all that can be left of hours, whatever else fails.

    Raises:
        click.ClickException: What failed on the way, or does here.
    """
    print_report(made)
    failures = [] if failure is None else [failure.message]
    if given["json_file"]:
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        with _kept(failures):
            write_file("--json", given["json_file"], lambda file: file.write(text.encode()))
    if given["plot_file"]:
        with _kept(failures):
            write_file("--plot", given["plot_file"], lambda file: plot(made, file))
    if failures:
        raise click.ClickException("\n".join(failures))


@contextmanager
def _kept(failures: list[str]) -> Iterator[None]:
    """Keep what a failure says until the rest is done."""
    try:
        yield
    except click.ClickException as failure:
        failures.append(failure.message)


def _candidates(named: Sequence[tuple[str, str]]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(label or place.rstrip("/").rpartition("/")[2], place) for label, place in named
    )


def _check(
    given: dict[str, Any], models: Sequence[Candidate], rerankers: Sequence[Candidate]
) -> None:
    if not any(given[name] for name in ("data", "similarity", "mteb")):
        raise click.UsageError("Name data: --data FOLDER, --similarity FILE or --mteb TASK.")
    if rerankers and not given["data"]:
        raise click.UsageError("--reranker needs documents to order: name them with --data FOLDER.")
    if given["plot_file"] and not (given["data"] and models):
        raise click.UsageError("--plot shows retrieval: it needs --model and --data.")
    if not models and not rerankers:
        raise click.UsageError("Name a model with --model SOURCE, or --reranker SOURCE.")
    for name in () if models else OF_EMBEDDERS:
        if given[name]:
            raise click.UsageError(f"--{name} is for embedders: name one with --model SOURCE.")
    for option, file in (("--json", given["json_file"]), ("--plot", given["plot_file"])):
        if file and not file.absolute().parent.is_dir():
            raise click.UsageError(f"{option} is {file}, but there is no folder {file.parent}.")
        if file:
            try_file(option, file)
    if given["plot_file"]:
        needed("matplotlib.figure")
    labels = [each.label for each in (*models, *rerankers)]
    for label in labels:
        if labels.count(label) > 1 or label == BM25:
            raise click.UsageError(
                f"Two systems are called {label!r}. Name them apart: --model LABEL=SOURCE."
            )
    if given["baseline"] not in (BM25, *(each.label for each in models)):
        known = ", ".join((BM25, *(each.label for each in models)))
        raise click.UsageError(f"--baseline is {given['baseline']!r}; choose from {known}.")


def _data(given: dict[str, Any]) -> Data:
    datasets = []
    for label, folder in given["data"]:
        dataset = read_dataset(Path(folder), given["split"], given["max_queries"])
        datasets.append(replace(dataset, name=label or dataset.name))
    pairs = []
    for label, file in given["similarity"]:
        read = read_pairs(Path(file))
        pairs.append(replace(read, name=label or read.name))
    names = [*(each.name for each in datasets), *(each.name for each in pairs)]
    for name in names:
        if names.count(name) > 1 or name == MEAN:
            raise click.UsageError(
                f"The name {name!r} of data is taken. Name it apart: --data NAME=FOLDER."
            )
    return Data(tuple(datasets), tuple(pairs))
