"""What crosses the fields of an embedder's or reranker's spec, in CEL.

The published models' names, sizes and dimensions are written out from the catalogue: the API server
knows no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from embedfleet.catalog import PUBLISHED, PublishedModel
from embedfleet.messages import OutputType, Role
from embedfleet.resources.base import RESERVED_NAMES
from embedfleet.resources.model_source import Size
from embedfleet_operator.crds.schema import Rule, unique

__all__ = ["MODEL_RULES", "alias_rule", "hub_names"]

_UNKNOWN = 0
"""Stands for the native dimension of a model that is not published."""


def hub_names(models: Iterable[PublishedModel]) -> str:
    """List published names in CEL, in lower case: hub names are the same in any."""
    return _list(model.source.lower() for model in models)


def alias_rule() -> Rule:
    """No alias is a name that the fleet uses itself."""
    return Rule(
        ".aliases",
        f"self.aliases.all(a, !(a in {_list(sorted(RESERVED_NAMES))}))",
        f"{', '.join(sorted(RESERVED_NAMES))} is reserved for the fleet itself. Choose another.",
    )


def _rules(role: Role) -> tuple[Rule, ...]:
    """Give the rules of one kind's spec."""
    dimensions = _dimensions() if role is Role.EMBEDDER else ()
    return (alias_rule(), *_source_rules(role), *_role_rules(role), *dimensions)


def _source_rules(role: Role) -> tuple[Rule, ...]:
    sizes = ", ".join(
        f"'{size}': {hub_names(m for m in PUBLISHED if m.size == size)}" for size in Size
    )
    return (
        Rule(
            ".model.source",
            "has(self.model.source) || has(self.model.size) || has(self.model.cache)",
            "a model needs source, size or cache. Set one, such as size: 0.6B.",
        ),
        Rule(
            ".model.size",
            "!has(self.model.size) || !has(self.model.source)"
            f" || self.model.source.lowerAscii() in {{{sizes}}}[self.model.size]",
            "does not describe the source. Leave out one of the two.",
            "self.model.size",
        ),
        Rule(
            ".model.revision",
            f"!has(self.model.revision) || !has(self.model.source) || !({_LOCAL})",
            "a local source has no revisions. Leave it out: digests identify local files.",
            "self.model.revision",
        ),
        Rule(
            ".model.cache",
            f"!has(self.model.cache) || !has(self.model.source) || !({_LOCAL})",
            "the source is local, so nothing has to be cached. Leave out one of the two.",
            "self.model.cache",
        ),
        Rule(
            ".model.revision",
            "!has(self.model.revision) || has(self.model.source) || has(self.model.size)"
            " || !has(self.model.cache)",
            "the ModelCache says which commit is cached. Leave it out, or name the source that it"
            " is a commit of.",
            "self.model.revision",
        ),
        Rule(
            ".model.revision",
            f"has(self.model.revision) || {_pinned(role)}",
            "no commit of this source is pinned, and its files can change. Set the 40-digit commit"
            " that you want served.",
        ),
    )


def _role_rules(role: Role) -> tuple[Rule, ...]:
    """What a known checkpoint can be used as, and in which type."""
    other = Role.RERANKER if role is Role.EMBEDDER else Role.EMBEDDER
    large = hub_names(m for m in PUBLISHED if m.float16_overflows)
    return (
        Rule(
            ".model.source",
            "!has(self.model.source) || !(self.model.source.lowerAscii() in "
            f"{hub_names(m for m in PUBLISHED if m.role is other)})",
            f"is a published {other}. Declare it as kind {other.capitalize()}, or name"
            f" {'an' if role is Role.EMBEDDER else 'a'} {role}.",
            "self.model.source",
        ),
        Rule(
            ".model.source",
            "!has(self.model.source) || !self.model.source.startsWith('embedded/')"
            f" || self.model.source == 'embedded/{role}'",
            f"is no {role} that comes with embedfleet. Name embedded/{role}.",
            "self.model.source",
        ),
        Rule(
            ".quantization.weights",
            "self.quantization.weights != 'float16' || !(has(self.model.source) ?"
            f" self.model.source.lowerAscii() in {large} :"
            f" has(self.model.size) && self.model.size == '{Size.LARGE}')",
            "overflows to NaN on models of 8B. Use bfloat16 or float32.",
            "self.quantization.weights",
        ),
    )


_LOCAL = " || ".join(
    f"self.model.source.startsWith('{start}')" for start in ("/", "file://", "embedded/")
)


def _pinned(role: Role) -> str:
    """Whether a model without `revision` is local, or published with a commit."""
    sizes = _list(m.size for m in PUBLISHED if m.role is role and m.revision)
    return (
        f"(has(self.model.source) ? ({_LOCAL} || self.model.source.lowerAscii() in"
        f" {hub_names(m for m in PUBLISHED if m.revision)}) :"
        f" (!has(self.model.size) || self.model.size in {sizes}))"
    )


def _dimensions() -> tuple[Rule, ...]:
    embedders = [m for m in PUBLISHED if m.role is Role.EMBEDDER]
    by_name = ", ".join(f"'{m.source.lower()}': {m.native_dimension}" for m in embedders)
    by_size = ", ".join(f"'{m.size}': {m.native_dimension}" for m in embedders)
    native = (
        f"[has(self.model.source) ? (self.model.source.lowerAscii() in {{{by_name}}} ?"
        f" {{{by_name}}}[self.model.source.lowerAscii()] : {_UNKNOWN}) :"
        f" (has(self.model.size) ? {{{by_size}}}[self.model.size] : {_UNKNOWN})]"
    )
    above = "must be at most the model's native dimension. Lower it, or choose a larger model."
    return (
        Rule(
            ".dimension",
            f"!has(self.dimension) || {native}.all(n, n == {_UNKNOWN} || self.dimension <= n)",
            above,
            "self.dimension",
        ),
        Rule(
            ".dimension",
            "!has(self.dimension) || self.dimension % 8 == 0"
            f" || !(self.quantization.output in {_list(t for t in OutputType if t.packs_bits)})",
            "must be a multiple of 8 where quantization.output packs eight components to a byte."
            " Lower it to one, or set another output.",
            "self.dimension",
        ),
        Rule(
            ".allowedDimensions",
            f"{native}.all(n, n == {_UNKNOWN} || self.allowedDimensions.all(d, d <= n))",
            above,
        ),
        Rule(
            ".allowedDimensions",
            "size(self.allowedDimensions) == 0 || (has(self.dimension) ?"
            f" self.dimension in self.allowedDimensions : {native}.all(n, n == {_UNKNOWN} ||"
            " n in self.allowedDimensions))",
            "must contain the default dimension. Add it, or set dimension to one that is listed.",
        ),
    )


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(repr(str(value)) for value in values)}]"


MODEL_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "Batching": (
        Rule(
            ".maxBatchTokens",
            "!has(self.maxBatchTokens) || self.maxBatchTokens <= self.maxQueuedTokens",
            "must be at most maxQueuedTokens. Raise maxQueuedTokens or lower it.",
            "self.maxBatchTokens",
        ),
        Rule(
            ".maxItemsPerRequest",
            "self.maxItemsPerRequest <= self.maxQueuedItems",
            "must be at most maxQueuedItems. Raise maxQueuedItems or lower it.",
            "self.maxItemsPerRequest",
        ),
    ),
    "Instruction": (
        Rule(
            ".default",
            r"self.default.matches(r'[^\p{Z}\p{Cc}]')",
            "must be text: queries without one are refused. Write what queries look for, or leave"
            " it out for the usual one.",
        ),
    ),
    "Placement": (
        Rule(".pools", unique("self.pools"), "a pool is named twice. Remove one of the two."),
    ),
    "Scaling": (
        Rule(
            ".maxReplicas",
            "!has(self.maxReplicas) || self.maxReplicas >= self.minReplicas",
            "must be at least minReplicas. Raise it or lower minReplicas.",
            "self.maxReplicas",
        ),
    ),
    "EmbedderSpec": _rules(Role.EMBEDDER),
    "RerankerSpec": _rules(Role.RERANKER),
}
