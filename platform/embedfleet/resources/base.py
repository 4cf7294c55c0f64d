"""What every part of every resource shares: strict fields, camelCase outside, and stated rules.

A field's bounds and description stand on the field, and a generated schema repeats them. What
crosses fields is a rule of the part that holds them, with its own message. Knows nothing of YAML
files or of which other resources exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

__all__ = [
    "API_VERSION",
    "LABEL_KEY",
    "PATTERNS",
    "RESERVED_NAMES",
    "ROUTER",
    "RULES",
    "Alias",
    "LabelValue",
    "Metadata",
    "Name",
    "ObjectName",
    "Part",
    "PullSecrets",
    "Resource",
    "Subdomain",
    "Violation",
    "repetitions",
]

API_VERSION: Final = "embedfleet.io/v1alpha1"
RULES: Final = "rules"

ROUTER: Final = "router"
"""Application, and its deployment, that answers for the fleet as a whole."""

RESERVED_NAMES: Final = frozenset({ROUTER})
"""What a fleet calls applications of its own."""

_NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_NAMESPACE: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_SUBDOMAIN: Final = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
_ALIAS: Final = r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$"
LABEL_KEY: Final = r"^([A-Za-z0-9][A-Za-z0-9.-]*/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_LABEL_VALUE: Final = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$"

PATTERNS: Final[dict[str, str]] = {
    _NAME: "must be lower-case letters, digits and '-', from a letter to a letter or digit",
    _NAMESPACE: "must be lower-case letters, digits and '-' between letters or digits",
    _SUBDOMAIN: "must be lower-case letters, digits, '-' and '.' between letters or digits",
    _ALIAS: "must start with a letter or digit and hold only letters, digits and . _ / : @ + -",
    LABEL_KEY: "must be a label key such as cloud.example/gpu",
    _LABEL_VALUE: "must be letters, digits and . _ - between letters or digits",
}
"""What each pattern means, in words; parts with patterns of their own add to it."""

Name = Annotated[str, Field(pattern=_NAME, min_length=1, max_length=47)]
"""DNS label. 47: the longest name KubeRay takes for a RayService."""

ObjectName = Annotated[str, Field(pattern=_NAME, min_length=1, max_length=63)]
"""DNS label: name of an object of Kubernetes' own kinds."""

Subdomain = Annotated[str, Field(pattern=_SUBDOMAIN, min_length=1, max_length=253)]
"""DNS subdomain: name of a Secret or a ServiceAccount that others make."""

PullSecrets = Annotated[tuple[Subdomain, ...], Field(max_length=8)]
"""Secrets of type kubernetes.io/dockerconfigjson: one a registry."""

Alias = Annotated[str, Field(pattern=_ALIAS, min_length=1, max_length=128)]
"""Another name of a model: has no blank, so that it can stand in a map file."""

LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE, max_length=63)]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that crosses fields and does not hold.

    Attributes:
        path: Field in the manifest's spelling, relative to the part that states the rule.
        value: What was found.
        limit: What is allowed, completing the sentence "PATH is VALUE: ...".
        remedy: What to do next, as a sentence.
        reads: Other fields that the verdict rests on, spelled like `path`.
    """

    path: str
    value: object
    limit: str
    remedy: str
    reads: tuple[str, ...] = ()


def repetitions(field: str, values: Sequence[str]) -> Iterator[Violation]:
    """Yield the entries of a list that stand in it before."""
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Violation(f"{field}[{index}]", value, "is listed twice", "Remove one of the two.")


class Part(BaseModel):
    """Base of every model: unknown fields refused, no coercion, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
    )

    def violations(self) -> Iterator[Violation]:
        """Yield every rule that does not hold between this part's fields."""
        yield from ()

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        violations = tuple(self.violations())
        if violations:
            text = "; ".join(f"{v.path} is {v.value}: {v.limit}. {v.remedy}" for v in violations)
            raise PydanticCustomError(RULES, "{text}", {"text": text, "violations": violations})
        return self


class Metadata(Part):
    """Kubernetes' own fields. All but the first four are set by the API server and not read."""

    name: Name
    """Name of the resource; for a model, what clients send as `model`."""
    namespace: Annotated[str, Field(pattern=_NAMESPACE, max_length=63)] | None = None
    """Namespace; resources refer only to others in the same one."""
    labels: dict[str, Any] | None = None
    """Kubernetes labels; not interpreted."""
    annotations: dict[str, Any] | None = None
    """Kubernetes annotations; not interpreted."""
    uid: Any = None
    resource_version: Any = None
    generation: Any = None
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    finalizers: Any = None
    owner_references: Any = None
    managed_fields: Any = None
    self_link: Any = None


class Resource(Part):
    """What every kind has besides its `spec`; kinds add `apiVersion`, `kind` and `spec`."""

    metadata: Metadata
    """Standard object metadata."""
    status: dict[str, Any] | None = None
    """Written by the operator; ignored in a manifest."""

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name
