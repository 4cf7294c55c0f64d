"""Quality against bytes per vector, as a picture: what an index of half the size costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from embedfleet.evaluation.comparing import MEAN
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.measures import PRIMARY
from embedfleet.evaluation.variants import OUTPUT_TYPES

__all__ = ["plot"]

_MARKERS: Final = dict(zip(OUTPUT_TYPES, "osD^v", strict=True))
# Where a point's dimension is written: types that meet at one size keep out of each other's way.
_PLACES: Final = dict(
    zip(
        OUTPUT_TYPES,
        (
            (0, -14, "center"),
            (5, 6, "left"),
            (-5, 6, "right"),
            (0, 8, "center"),
            (0, -14, "center"),
        ),
        strict=True,
    )
)
_PALETTE: Final = ("#0b5fa5", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490")
_BASELINE: Final = "#4b5563"
_INCHES: Final = (9.6, 5.6)


def plot(report: Mapping[str, Any], file: Path | BinaryIO) -> None:
    """Write the picture as PNG.

    Args:
        report: With at least one embedder.
        file: Overwritten.

    Raises:
        Unsupported: matplotlib is not installed.
        OSError: The file cannot be written.
    """
    # Without a display, and without touching what else draws in this process.
    figure = needed("matplotlib.figure").Figure(figsize=_INCHES, layout="constrained")
    needed("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [each["name"] for each in report["datasets"]]
    dataset = MEAN if len(names) > 1 else names[0]
    vectors = [each for each in report["systems"] if each["kind"] == "embedder"]
    colors = _colors([each["model"] for each in vectors])
    for model, color in colors.items():
        _model(axes, [each for each in vectors if each["model"] == model], dataset, color)
    _levels(axes, report["systems"], dataset, colors)
    _dress(axes, names)
    figure.savefig(file, dpi=150, format="png")


def _colors(models: Sequence[str]) -> dict[str, str]:
    unique = list(dict.fromkeys(models))
    return {model: _PALETTE[at % len(_PALETTE)] for at, model in enumerate(unique)}


def _model(axes: Any, systems: Sequence[Mapping[str, Any]], dataset: str, color: str) -> None:
    """Draw one line a type, from the smallest dimension to the native one."""
    for kind, marker in _MARKERS.items():
        points = sorted(
            (
                (each["bytesPerVector"], each["quality"][dataset][PRIMARY], each["dimension"])
                for each in systems
                if each["outputType"] == kind and each["instruction"]
            ),
            key=lambda point: point[0],
        )
        if not points:
            continue
        sizes = [size for size, _, _ in points]
        values, lows, highs = (
            [100 * quality[field] for _, quality, _ in points] for field in ("value", "low", "high")
        )
        axes.fill_between(sizes, lows, highs, color=color, alpha=0.06, linewidth=0)
        axes.plot(
            sizes,
            values,
            marker=marker,
            color=color,
            markersize=6,
            linewidth=1.4,
            markerfacecolor="white" if kind != "FLOAT32" else color,
            label=f"{systems[0]['model']}  {kind}",
        )
        across, up, side = _PLACES[kind]
        for size, value, dimension in zip(sizes, values, (d for _, _, d in points), strict=True):
            axes.annotate(
                str(dimension),
                (size, value),
                textcoords="offset points",
                xytext=(across, up),
                ha=side,
                fontsize=7,
                color=color,
            )


def _levels(
    axes: Any, systems: Sequence[Mapping[str, Any]], dataset: str, colors: Mapping[str, str]
) -> None:
    """Draw what has no vectors of its own as levels: the baseline, and second stages."""
    for each in systems:
        if each["kind"] == "embedder":
            continue
        second = each["kind"] == "reranker"
        axes.axhline(
            100 * each["quality"][dataset][PRIMARY]["value"],
            color=colors.get(each.get("firstStage", ""), _BASELINE),
            linestyle=(0, (5, 2)) if second else (0, (1, 1.5)),
            linewidth=1.4,
            label=each["name"] if second else "BM25",
        )


def _dress(axes: Any, names: Sequence[str]) -> None:
    ticker = needed("matplotlib.ticker")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axes.set_xlabel("bytes per vector, log scale (at points: dimensions; bands: 95 % confidence)")
    axes.set_ylabel("nDCG@10, points")
    what = names[0] if len(names) == 1 else f"mean of {len(names)} datasets"
    axes.set_title(f"Quality against size: {what}", loc="left", fontweight="bold")
    axes.grid(True, which="major", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
