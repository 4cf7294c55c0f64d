"""`embedfleet synthesize`: training examples for passages, written by a language model."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.exceptions import Exit

from embedfleet.cli.options import changed_fields, set_option
from embedfleet.cli.output import format_option, note, progress
from embedfleet.config import Settings

if TYPE_CHECKING:
    from embedfleet.tuning.synthesis.journal import Journal
    from embedfleet.tuning.synthesis.report import Report
    from embedfleet.tuning.synthesis.running import Synthesis
    from embedfleet.tuning.synthesis.settings import SynthesisSettings

__all__ = ["synthesize"]

_PLACES: Final = {
    "passages": "passages.file",
    "folder": "outputFolder",
    "base_url": "endpoint.baseUrl",
    "llm": "endpoint.model",
    "key_variable": "endpoint.keyVariable",
    "embedder": "filter.model.source",
    "min_cosine": "filter.minCosine",
    "seed": "seed",
    "max_requests": "budget.maxRequests",
}
"""Where an option's value stands in the settings."""


@click.command()
@click.option(
    "-f",
    "--file",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Settings (YAML). Options win over them.",
)
@click.option("--passages", metavar="PATH", help="Texts: JSON Lines, or one a line.")
@click.option("--to", "folder", metavar="FOLDER", help="For answers, examples and report.")
@click.option("--base-url", metavar="URL", help="Endpoint, such as http://localhost:8000/v1.")
@click.option("--llm", metavar="NAME", help="Language model at the endpoint.")
@click.option("--key-variable", metavar="NAME", help="Environment variable with the key.")
@click.option("--embedder", metavar="SOURCE", help="Model that filters the pairs.")
@click.option("--min-cosine", type=float, help="Keep pairs above it.  [default: 0.7]")
@click.option("--seed", type=int, help="Of personas, languages and lengths.  [default: 0]")
@click.option("--max-requests", type=int, help="Of all runs together; 0 uses what is there.")
@set_option
@click.option("--retry-refused", is_flag=True, help="Ask again what the endpoint refused.")
@click.option("--dry-run", is_flag=True, help="Show what it would cost, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask whether the cost is fine.")
@format_option
def synthesize(settings_file: Path | None, changes: tuple[str, ...], **given: Any) -> None:
    """Write queries for passages with a language model.

    For each passage the model chooses a task, a persona, a type of question and a difficulty, and
    then writes the query. Pairs whose cosine is above the bound become examples.jsonl in the
    folder, the others rejected.jsonl, with report.json beside them. Run the same command again to
    go on after an interruption: no question is asked twice.
    """
    if settings_file is None and not any(given[name] for name in ("passages", "base_url")):
        raise click.UsageError("Give settings with --file synthesize.yaml, or as options.")
    # Here, so that help answers at once.
    from embedfleet.tuning.synthesis.journal import Journal
    from embedfleet.tuning.synthesis.reading import read_settings
    from embedfleet.tuning.synthesis.running import gather

    options = {place: given[name] for name, place in _PLACES.items() if given[name] is not None}
    settings = read_settings(settings_file, options | changed_fields(changes))
    synthesis = gather(settings, Settings.load().environment)
    with Journal.open(synthesis.folder) as journal:
        if given["retry_refused"]:
            journal.forget_not_taken()
        num_questions = _show_estimate(synthesis, journal)
        if given["dry_run"]:
            return
        if num_questions:
            _check_embedder(settings)
            if not given["yes"]:
                _confirm()
        report = _run(synthesis, journal)
    _show(report, synthesis, given["output"])
    if report.num_waiting:
        raise Exit(1)


def _check_embedder(settings: SynthesisSettings) -> None:
    """Find out before money is spent whether the filter's model is there."""
    from embedfleet.checkpoint import open_checkpoint, resolve
    from embedfleet.messages import Role

    model = settings.filter.model
    open_checkpoint(resolve(model.source, model.revision), Role.EMBEDDER)


def _show_estimate(synthesis: Synthesis, journal: Journal) -> int:
    from embedfleet.cli.synthesis_tables import estimate_lines

    estimate = synthesis.estimate(journal)
    for line in estimate_lines(estimate, synthesis):
        note(line)
    return 0 if synthesis.settings.budget.max_requests == 0 else estimate.num_questions


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to say yes to the cost: add --yes.")
    click.confirm("Go on?", abort=True, err=True)


def _run(synthesis: Synthesis, journal: Journal) -> Report:
    from embedfleet.engine.local import load_embedder
    from embedfleet.tuning.synthesis.running import ask, finish

    total = sum(1 for _ in synthesis.draws())
    with progress("writing", total) as advance:
        asked = asyncio.run(ask(synthesis, journal, advance, note))
    model = synthesis.settings.filter.model
    with (
        load_embedder(model.source, revision=model.revision) as embedder,
        progress("comparing", len(asked.drafts)) as advance,
    ):
        return finish(synthesis, asked, journal, embedder, advance)


def _show(report: Report, synthesis: Synthesis, output: str) -> None:
    from embedfleet.cli.output import write_json_line
    from embedfleet.cli.synthesis_tables import print_report
    from embedfleet.tuning.synthesis.files import EXAMPLES

    if output == "jsonl":
        write_json_line(report.as_json(), sys.stdout)
    else:
        print_report(report)
    note(f"{report.num_kept:,} examples in {synthesis.folder / EXAMPLES}")
    if report.num_waiting:
        note(
            f"embedfleet: {report.num_waiting:,} queries are not answered yet: {report.stopped}. "
            "Run the same command again to go on."
        )
