"""The custom resource definitions as values: names, columns, subresources and schema of each kind.

Columns answer: is it serving, what, how much, where. `kubectl scale` and autoscalers set
`minReplicas`; a number above `maxReplicas` is refused by the schema.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedfleet.resources import Embedder, Fleet, ModelCache, ModelRoute, Reranker
from embedfleet.resources.base import API_VERSION, RESERVED_NAMES, Metadata, Part, Resource
from embedfleet.resources.embedder import EmbedderSpec
from embedfleet.resources.fleet import FleetSpec
from embedfleet.resources.model_cache import ModelCacheSpec
from embedfleet.resources.model_route import ModelRouteSpec
from embedfleet.resources.reranker import RerankerSpec
from embedfleet_operator.crds.cache_rules import CACHE_CHANGES, CACHE_RULES
from embedfleet_operator.crds.fleet_rules import FLEET_RULES
from embedfleet_operator.crds.model_rules import MODEL_RULES
from embedfleet_operator.crds.route_rules import ROUTE_RULES
from embedfleet_operator.crds.schema import (
    ListType,
    Rule,
    Schema,
    structural,
    validations,
    written_out,
)
from embedfleet_operator.crds.status import CacheStatus, FleetStatus, ModelStatus, RouteStatus

__all__ = ["KINDS", "LISTS", "RULES", "Kind", "definition"]

RULES: Final = {**FLEET_RULES, **MODEL_RULES, **ROUTE_RULES, **CACHE_RULES}
"""CEL twins by the name of the class that states the rule."""

_SET: Final = ListType("set")

LISTS: Final[Mapping[tuple[str, str], ListType]] = {
    ("FleetSpec", "pools"): ListType("map", "name"),
    ("FleetSpec", "imagePullSecrets"): _SET,
    ("ModelCacheSpec", "imagePullSecrets"): _SET,
    ("EmbedderSpec", "aliases"): _SET,
    ("EmbedderSpec", "allowedDimensions"): _SET,
    ("RerankerSpec", "aliases"): _SET,
    ("ModelRouteSpec", "aliases"): _SET,
    ("Conditions", "tiers"): _SET,
    ("RouteRule", "targets"): ListType("map", "model"),
    ("FleetStatus", "conditions"): ListType("map", "type"),
    ("FleetStatus", "pools"): ListType("map", "name"),
    ("FleetStatus", "lastChanges"): ListType("map", "impact"),
    ("ModelStatus", "conditions"): ListType("map", "type"),
    ("RouteStatus", "conditions"): ListType("map", "type"),
    ("RouteStatus", "models"): ListType("map", "name"),
    ("CacheStatus", "conditions"): ListType("map", "type"),
}
"""Lists that are merged entry by entry; where order decides, a list is replaced as a whole."""

_NAME_KEYWORDS: Final = ("type", "pattern", "maxLength")
_READY: Final = ".status.conditions[?(@.type=='Ready')]"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; those of priority 1 show with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """What a definition holds besides the schema of its spec.

    Attributes:
        status: What is reported.
        columns: Columns between Ready and Reason.
        frozen: Fields under `spec` that may not change once the condition `frozen_by` is True.
        changes: Rules on what else may not change.
        scales: Whether replicas can be set from outside.
    """

    resource: type[Resource]
    spec: type[Part]
    status: type[Part]
    short: str
    columns: tuple[Column, ...]
    frozen: tuple[str, ...] = ()
    frozen_by: str = "Accepted"
    changes: tuple[Rule, ...] = ()
    scales: bool = False

    @property
    def name(self) -> str:
        """The kind, such as ModelCache."""
        return self.resource.__name__

    @property
    def plural(self) -> str:
        """Its plural in addresses, such as modelcaches."""
        return f"{self.name.lower()}s"


_REPLICAS: Final = Column("Replicas", ".status.replicas", "integer")
_FLEET: Final = Column("Fleet", ".status.fleet")
_ENDPOINT: Final = Column("Endpoint", ".status.endpoint")
_CONTRACT: Final = Column("Contract", ".status.contractHash", priority=1)
_MODEL: Final = Column("Model", ".spec.model['source','size','cache']")

_IDENTITY: Final = ("model.source", "model.size", "model.revision", "model.cache")
_UNLESS: Final = {"model.cache": "has(self.spec.model.source) || has(self.spec.model.size)"}
"""Where a source says what a model is, its files may move into a cache, or out of it."""

KINDS: Final = (
    Kind(
        Fleet, FleetSpec, FleetStatus, "fleet",
        (
            Column("Models", ".status.servedModels", "integer"),
            Column("Nodes", ".status.nodes", "integer"),
            _ENDPOINT,
        ),
    ),
    Kind(
        Embedder, EmbedderSpec, ModelStatus, "emb",
        (_MODEL, Column("Dimension", ".spec.dimension", "integer"), _REPLICAS, _FLEET, _ENDPOINT,
         _CONTRACT),
        frozen=(*_IDENTITY, "quantization.weights"), scales=True,
    ),
    Kind(
        Reranker, RerankerSpec, ModelStatus, "rrk",
        (_MODEL, _REPLICAS, _FLEET, _ENDPOINT, _CONTRACT),
        frozen=(*_IDENTITY, "quantization.weights", "template"), scales=True,
    ),
    Kind(
        ModelRoute, ModelRouteSpec, RouteStatus, "mroute",
        (Column("Kind", ".spec.targetKind"), Column("Rules", ".spec.rules[*].name"), _FLEET,
         _ENDPOINT, _CONTRACT),
    ),
    Kind(
        ModelCache, ModelCacheSpec, CacheStatus, "mcache",
        (
            Column("Revision", ".status.revision"),
            Column("Bytes", ".status.cachedBytes", "integer"),
            Column("Claim", ".status.claimName"),
        ),
        frozen=("source", "revision"), frozen_by="Cached", changes=CACHE_CHANGES,
    ),
)  # fmt: skip


def definition(kind: Kind) -> Schema:
    """Write one CustomResourceDefinition."""
    group, version = API_VERSION.split("/")
    subresources: Schema = {"status": {}}
    if kind.scales:
        subresources["scale"] = {
            "specReplicasPath": ".spec.scaling.minReplicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{group}",
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["embedfleet"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _columns(kind),
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": _schema(kind)},
                }
            ],
        },
    }


def _columns(kind: Kind) -> list[Schema]:
    columns = (
        Column("Ready", f"{_READY}.status"),
        *kind.columns,
        Column("Reason", f"{_READY}.reason"),
        Column("Message", f"{_READY}.message", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )
    return [
        {"name": each.name, "type": each.type, "jsonPath": each.path}
        | ({"priority": each.priority} if each.priority else {})
        for each in columns
    ]


def _schema(kind: Kind) -> Schema:
    field = kind.resource.model_fields["spec"]
    spec = structural(kind.spec, RULES, LISTS)
    if not field.is_required():
        spec["default"] = written_out(spec)
    name = Metadata.model_json_schema()["properties"]["name"]
    schema: Schema = {
        "description": inspect.cleandoc(kind.resource.__doc__ or ""),
        "type": "object",
        **({"required": ["spec"]} if field.is_required() else {}),
        "properties": {
            "apiVersion": {"description": "Schema of this resource.", "type": "string"},
            "kind": {"description": f"Always {kind.name}.", "type": "string"},
            "metadata": {
                "type": "object",
                "properties": {"name": {key: name[key] for key in _NAME_KEYWORDS}},
            },
            "spec": spec,
            "status": structural(kind.status, {}, LISTS),
        },
    }
    names = _NAMES if "aliases" in spec["properties"] else ()
    rules = (*names, *_frozen(kind), *kind.changes)
    if rules:
        schema["x-kubernetes-validations"] = validations(rules)
    return schema


_NAMES: Final = (
    Rule(
        ".metadata.name",
        f"!(self.metadata.name in {sorted(RESERVED_NAMES)})",
        "is reserved for the fleet itself. Choose another.",
        "self.metadata.name",
    ),
    Rule(
        ".spec.aliases",
        "!has(self.spec.aliases) || !(self.metadata.name in self.spec.aliases)",
        "holds the resource's own name. Leave it out.",
    ),
)
"""What clients call a resource; names of other resources stay with the operator."""


def _frozen(kind: Kind) -> list[Rule]:
    """Hold what determines the outputs of a resource whose old version has a condition."""
    holds = (
        "has(oldSelf.status) && has(oldSelf.status.conditions) && oldSelf.status.conditions"
        f".exists(c, c.type == '{kind.frozen_by}' && c.status == 'True')"
    )
    return [
        Rule(
            f".spec.{field}",
            f"{_same(field)} || {_UNLESS.get(field, 'false')} || !({holds})",
            f"determines the outputs of a {kind.name} that is {kind.frozen_by} and cannot change."
            " Create another beside it and move over to that.",
        )
        for field in kind.frozen
    ]


def _same(field: str) -> str:
    """Say in CEL that a field has not changed, nor come or gone."""
    new, old = f"self.spec.{field}", f"oldSelf.spec.{field}"
    return f"(has({new}) ? has({old}) && {new} == {old} : !has({old}))"
