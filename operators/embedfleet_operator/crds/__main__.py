"""Write the definitions as a chart's templates.

Usage: python -m embedfleet_operator.crds charts/embedfleet-crds/templates
"""

from __future__ import annotations

from pathlib import Path

import click

from embedfleet_operator.crds.files import files


@click.command(help="Write the custom resource definitions into FOLDER, one file each.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write what is not there or differs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
