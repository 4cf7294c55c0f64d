"""Manifests drawn from a definition's schema and from good ones that are changed in places.

Knows the schema and a few values that make rules between fields matter; knows no rule.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hypothesis import strategies as st

__all__ = ["manifests", "values"]

Schema = Mapping[str, Any]
Step = str | int

COMMIT: Final = "0123456789abcdef0123456789abcdef01234567"
HUB: Final = [
    "Qwen/Qwen3-Embedding-0.6B", "qwen/qwen3-embedding-8b", "Qwen/Qwen3-Reranker-4B",
    "QWEN/QWEN3-RERANKER-8B", "someone/finetune",
]  # fmt: skip
LIKELY: Final[Mapping[str, list[Any]]] = {
    "source": [*HUB, "embedded/embedder", "/models/a b", "/models/a", "file:///models/ü"],
    "name": ["a", "b", "c", HUB[0], HUB[3], HUB[4]],
    "model": ["a", "b", "c"],
    "fallbackPool": ["a", "b", "c"],
    "accelerator": ["NVIDIA-H200", ""],
    "revision": [COMMIT],
    "cache": ["a", "weights"],
    "aliases": ["router", "alias", "A/B:c@1"],
    "pools": ["a", "b"],
    "allowedDimensions": [32, 1024, 2560, 4096],
    "dimension": [32, 100, 1024, 2560, 4096, 4097],
    "address": ["https://models.example/qwen3"],
    "default": ["", " ", "\n\u2028", "\u0085x"],
    "keep": [1, 5, 50],
    "goldenConfigMapName": ["docs-golden", "a" * 63],
    "minCosine": [0.95],
    "minRankAgreement": [0.0],
}
"""Values of fields, by name, where a draw from the bounds would hardly ever meet a rule."""

KEYS: Final = ["config.json", "sub/model.safetensors", "cloud.example/gpu", "zone", "../up", "-"]
ODD: Final = [None, "", "x", "A b", "a\n", "\u00a0", "ü", 0, -1, 7, 1.5, 2.0, 1e300, True, [], {}]


def manifests(kind: str, spec: Schema, seeds: list[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw manifests: anything the schema allows, or a seed with up to three places changed."""
    return st.fixed_dictionaries(
        {
            "apiVersion": st.just("embedfleet.io/v1alpha1"),
            "kind": st.just(kind),
            "metadata": st.fixed_dictionaries({"name": st.sampled_from(["a", "alias", "docs-1"])}),
            "spec": st.one_of(*[_varied(spec, seeds)] * 5, values(spec)),
        }
    )


@st.composite
def _varied(draw: st.DrawFn, schema: Schema, seeds: list[Any]) -> Any:
    """Draw a seed and change places of it, most to what their schemas allow, one for the worse."""
    whole = {"spec": copy.deepcopy(draw(st.sampled_from(seeds)))}
    for _ in range(draw(st.sampled_from([1, 0, 2, 1]))):
        holder, last, inner = _place(draw, whole, schema)
        if isinstance(holder[last], dict) and (names := inner.get("properties", {}).keys()):
            name = draw(st.sampled_from(sorted(names)))
            holder[last][name] = draw(values(inner["properties"][name], name))
        else:
            holder[last] = draw(values(inner, str(last)))
    if draw(st.sampled_from([False, False, True])):
        holder, last, inner = _place(draw, whole, schema)
        holder[last] = draw(st.sampled_from(list(_worse(holder[last], inner))))
    return whole["spec"]


def _place(draw: st.DrawFn, whole: dict[str, Any], schema: Schema) -> tuple[Any, Step, Schema]:
    path, inner = draw(st.sampled_from(list(_places(whole["spec"], schema, ("spec",)))))
    holder: Any = whole
    for step in path[:-1]:
        holder = holder[step]
    return holder, path[-1], inner


def values(schema: Schema, field: str = "") -> st.SearchStrategy[Any]:
    """Draw what a schema allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object" if "properties" in schema:
            required = schema.get("required", ())
            parts = {name: values(each, name) for name, each in schema["properties"].items()}
            return st.fixed_dictionaries(
                {name: each for name, each in parts.items() if name in required},
                optional={name: each for name, each in parts.items() if name not in required},
            )
        case "object":
            inner = values(schema["additionalProperties"])
            return st.dictionaries(st.sampled_from(KEYS), inner, max_size=2)
        case "array":
            least = schema.get("minItems", 0)
            inner = values(schema["items"], field)
            return st.lists(inner, min_size=least, max_size=min(schema["maxItems"], least + 3))
        case "boolean":
            return st.booleans()
        case "string":
            return _texts(schema, field)
    return _numbers(schema, field)


def _texts(schema: Schema, field: str) -> st.SearchStrategy[str]:
    if "pattern" not in schema:
        any_text = st.text(st.characters(codec="utf-8"), max_size=min(schema["maxLength"], 20))
        return st.sampled_from(LIKELY[field]) | any_text if field in LIKELY else any_text
    pattern = schema["pattern"]
    # Go's and Rust's classes of separators and controls, in words that Python has.
    drawn = st.from_regex(
        pattern.replace(r"\p{Z}\p{Cc}", r"\s\x00-\x1f\x7f-\x9f"), fullmatch=True
    ).filter(lambda text: schema.get("minLength", 0) <= len(text) <= schema["maxLength"])
    likely = [
        text
        for text in LIKELY.get(field, [])
        if isinstance(text, str)
        and re.search(pattern.replace(r"\p{Z}\p{Cc}", r"\s\x00-\x1f\x7f-\x9f"), text)
    ]
    return st.sampled_from(likely) | drawn if likely else drawn


def _numbers(schema: Schema, field: str) -> st.SearchStrategy[Any]:
    low, high = schema["minimum"], schema["maximum"]
    near = [low, low + 1, schema.get("default", low), high, *LIKELY.get(field, [])]
    corners = st.sampled_from([each for each in near if low <= each <= high])
    if schema["type"] == "integer":
        return corners | st.integers(low, high)
    return corners | st.floats(low, high, allow_subnormal=False)


def _places(value: Any, schema: Schema, path: tuple[Step, ...]) -> Iterator[tuple[Any, Schema]]:
    yield path, schema
    if isinstance(value, dict):
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name) or schema["additionalProperties"]
            yield from _places(inner, below, (*path, name))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, schema["items"], (*path, index))


def _worse(value: Any, schema: Schema) -> Iterator[Any]:
    """Yield what might stand there instead."""
    yield from ODD
    match value:
        case bool():
            yield "true"
        case str():
            yield from (value + "\n", value + " ", value.upper(), value + "é", "-" + value)
            yield value + "a" * schema.get("maxLength", 0)
        case int() | float():
            yield from (schema["minimum"] - 1, schema["maximum"] + 1, value + 0.25, str(value))
        case list():
            yield value + value
            yield (value or ["a"]) * (schema["maxItems"] + 1)
        case dict():
            yield {**value, "unknown": 1}
            for name in value:
                yield {key: each for key, each in value.items() if key != name}
                snake = re.sub("([A-Z])", r"_\1", name).lower()
                yield {snake if key == name else key: each for key, each in value.items()}
