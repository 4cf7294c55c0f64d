"""How `embedfleet evaluate` reads names with places, numbers and output types."""

from __future__ import annotations

from typing import Any

import click

from embedfleet.evaluation.variants import OUTPUT_TYPES

__all__ = ["Named", "Numbers", "OutputTypes"]


class Named(click.ParamType[tuple[str, str]]):
    """`NAME=PLACE`, or a place alone, which is its own name."""

    name = "[name=]place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        label, equals, place = str(value).partition("=")
        if equals and not (label and place):
            self.fail(f"{value!r} must be LABEL=SOURCE or SOURCE.", param, ctx)
        return (label, place) if equals else ("", str(value))


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between commas."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} must be whole numbers between commas, such as 32,64.", param, ctx)


class OutputTypes(click.ParamType[tuple[str, ...]]):
    """Output types between commas."""

    name = "types"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Check every name."""
        if isinstance(value, tuple):
            return value
        names = tuple(part.strip().upper() for part in str(value).split(","))
        for each in names:
            if each not in OUTPUT_TYPES:
                known = ", ".join(OUTPUT_TYPES)
                self.fail(f"{each!r} is not evaluated; choose from {known}.", param, ctx)
        return names
