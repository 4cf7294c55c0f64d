"""Takes memory until the kernel ends it: `python eater.py FILE`, FILE that of its control group."""

from __future__ import annotations

import sys
from pathlib import Path

_STEP_BYTES = 1 << 24


def main(group: Path) -> None:
    group.write_text("0")
    taken = []
    while True:
        # Not zeros, which the kernel would give to all from one page.
        taken.append(b"\x01" * _STEP_BYTES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
