"""`embedfleet merge`: checkpoints of one model into one."""

from __future__ import annotations

from pathlib import Path

import click

from embedfleet.cli.output import note, print_table, progress

__all__ = ["merge"]

# Those on which the checkpoints differ most.
SHOWN_TENSORS = 5


class _Weights(click.ParamType[tuple[float, ...]]):
    """Numbers between commas."""

    name = "weights"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not numbers between commas, such as 0.5,0.3,0.2.", param, ctx)


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the merged model; new or empty.",
)
@click.option(
    "--weights",
    type=_Weights(),
    metavar="NUMBERS",
    help="Of each checkpoint, such as 0.5,0.3,0.2; their sum is 1.  [default: equal]",
)
def merge(checkpoints: tuple[str, ...], output: Path, weights: tuple[float, ...] | None) -> None:
    """Merge checkpoints of one model into one.

    Directions of each tensor meet in their spherical mean (slerp, for two checkpoints), lengths in
    their weighted mean. Each of CHECKPOINTS is a folder, embedded/NAME or a pinned hub name.
    """
    # Here, because they load a tensor library.
    from embedfleet.checkpoint import resolve
    from embedfleet.checkpoint.shards import stored_tensors
    from embedfleet.tuning.merging import merge_checkpoints

    folders = [resolve(source) for source in checkpoints]
    num_bytes = sum(tensor.num_bytes for tensor in stored_tensors(folders[0]))
    with progress("merging bytes", num_bytes) as advance:
        report = merge_checkpoints(folders, output, weights, advance)
    widest = sorted(report.angles, key=lambda name: -report.angles[name])[:SHOWN_TENSORS]
    print_table(
        ["DEGREES APART#", "TENSOR"], [[f"{report.angles[name]:.3f}", name] for name in widest]
    )
    note(
        f"Merged {len(folders)} checkpoints, {len(report.angles)} tensors of {report.num_bytes:,} "
        f"bytes. Serve it with  model: {{source: {output.absolute()}}}"
    )
