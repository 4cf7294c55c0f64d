"""How far outputs are from golden ones, and in words why that is too far.

Vectors are compared by cosine, rankings by Kendall's tau-b, which bears ties (Kendall 1945, "The
treatment of ties in ranking problems", Biometrika 33). What is said here is also read back here,
since a replica's error reaches others as text only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from embedfleet.golden.outputs import Golden, Outputs
from embedfleet.golden.texts import GOLDEN_TEXTS
from embedfleet.messages import Float32Array, InputType, Role

__all__ = ["Comparison", "Measured", "compare", "drift", "measured", "refusal", "tau_b"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How outputs came out beside golden ones.

    Attributes:
        measure: Worst cosine, or rank agreement; None where too few are in both to tell.
        place: Of embedders, which golden text came out worst.
        difference: Of rerankers, the largest difference of two raw scores.
    """

    measure: float | None
    place: int | None = None
    difference: float | None = None


class Measured(NamedTuple):
    """What a refusal says in numbers, as far as it says it."""

    worst_cosine: float | None = None
    worst_text: str | None = None
    rank_agreement: float | None = None


def compare(golden: Golden, outputs: Outputs) -> Comparison:
    """Compare outputs with golden ones.

    Args:
        golden: What the contract gave.
        outputs: What is given now; of two vectors the components that both have are compared.
    """
    before = golden.decoded()
    common = sorted(before.keys() & outputs.keys())
    if golden.role is Role.EMBEDDER:
        cosines = {place: _cosine(before[place], outputs[place]) for place in common}
        if not cosines:
            return Comparison(None)
        worst = min(cosines, key=lambda place: cosines[place])
        return Comparison(cosines[worst], place=worst)
    if len(common) < 2:
        return Comparison(None)
    was, now = (np.array([each[p][0] for p in common], np.float64) for each in (before, outputs))
    return Comparison(tau_b(was, now), difference=float(np.abs(was - now).max()))


def refusal(golden: Golden, contract_hash: str, found: Comparison, bound: float) -> str:
    """Say in one line why a replica must not serve; empty if it may.

    Args:
        golden: What its outputs were compared with.
        contract_hash: The replica's own.
        found: How they compare.
        bound: Least worst cosine, or least rank agreement.
    """
    embeds = golden.role is Role.EMBEDDER
    said = _said(found)
    if contract_hash != golden.contract_hash:
        return (
            f"The contract is {contract_hash}, but golden outputs are of {golden.contract_hash}"
            f" ({said}). Undo the change of files, device or weights' type, or give the new"
            " version another name."
        )
    if found.measure is None:
        limit = "spec.maxTokens" if embeds else "spec.maxPairTokens"
        return f"Golden outputs cannot be compared: too few of the texts fit. Raise {limit}."
    if found.measure >= bound:
        return ""
    field = "minCosine" if embeds else "minRankAgreement"
    return (
        f"Golden outputs of {golden.contract_hash} come out otherwise: {said}, and"
        f" spec.verification.{field} is {bound:g}. Undo the change of backend, image, device or"
        " quantization, or give the new version another name."
    )


def drift(golden: Golden, served: Golden, bound: float) -> str:
    """Say in one line how what is served now misses golden outputs; empty if it does not.

    Foresees what replicas would say, as far as both were recorded alike: after another instruction
    only documents compare, and of a reranker nothing does. Golden outputs that running replicas
    refuse would stop them.
    """
    now = served.decoded()
    if golden.instruction != served.instruction:
        alike = [
            place
            for place, text in enumerate(GOLDEN_TEXTS)
            if text.input_type is InputType.DOCUMENT
        ]
        now = {p: now[p] for p in now if golden.role is Role.EMBEDDER and p in alike}
        if not now:
            return ""
    found = compare(golden, now)
    return refusal(golden, served.contract_hash, found, bound)


def measured(message: str) -> Measured:
    """Read the numbers back from what `refusal` said, also from inside a longer text."""
    cosine, agreement = _COSINE.search(message), _AGREEMENT.search(message)
    if cosine is not None:
        return Measured(float(cosine[1]), cosine[2])
    return Measured(rank_agreement=float(agreement[1])) if agreement is not None else Measured()


def tau_b(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Correlate two orders of the same things: 1 the same, -1 reversed, ties counted fairly.

    Two orders that are nothing but ties agree; one that is and one that is not have nothing in
    common.
    """
    upper = np.triu_indices(len(one), 1)
    first, second = (np.sign(each[:, None] - each[None, :])[upper] for each in (one, other))
    pairs = math.sqrt(float((first**2).sum()) * float((second**2).sum()))
    if pairs == 0:
        return 1.0 if np.array_equal(first, second) else 0.0
    return float((first * second).sum()) / pairs


_COSINE: Final = re.compile(r"worst cosine (-?\d\.\d{4}) of golden text \d, \"([^\"]*)\"")
_AGREEMENT: Final = re.compile(r"rank agreement (-?\d\.\d{4})")


def _said(found: Comparison) -> str:
    if found.measure is None:
        return "no golden texts in common to compare"
    shown = f"{math.floor(found.measure * 10_000) / 10_000:.4f}"  # never rounded up to the bound
    if found.place is not None:
        return f'worst cosine {shown} of golden text {found.place}, "{_excerpt(found.place)}"'
    return f"rank agreement {shown}, raw scores up to {found.difference:.3g} apart"


def _excerpt(place: int) -> str:
    words = " ".join(GOLDEN_TEXTS[place].text.split())
    return words if len(words) <= 32 else words[:31] + "…"


def _cosine(one: Float32Array, other: Float32Array) -> float:
    width = min(len(one), len(other))
    a, b = (each[:width].astype(np.float64) for each in (one, other))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
