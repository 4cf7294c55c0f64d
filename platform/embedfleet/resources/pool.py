"""The nodes that a fleet's models run on: one pool for each kind of node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from embedfleet.resources.base import LABEL_KEY, PATTERNS, LabelValue, Name, Part, Violation

__all__ = ["Pool", "Toleration"]

_BEFORE_AMPERE: Final = re.compile(
    r"(?:^|[-_ ])(?:K80|M60|P4|P40|P100|V100S?|T4G?|GTX|TITAN|RTX-?20\d\d"
    r"|RTX-?[3-8]000(?![-_ ]Ada))(?=$|[-_ ])",
    re.IGNORECASE,
)
"""NVIDIA's products of compute capability below 8.0, as nodes are labelled with them. The RTX A2000
and newer have an `A` before the number, or `Ada` behind it."""

LabelKey = Annotated[str, Field(pattern=LABEL_KEY, max_length=253)]


class TolerationEffect(StrEnum):
    """Which effect of a taint is tolerated."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Part):
    """A taint that the pool's pods tolerate."""

    key: LabelKey | None = None
    """Taint key. Left out: every key."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the value must be equal or the key merely exist."""
    value: LabelValue | None = None
    """Taint value, for Equal."""
    effect: TolerationEffect | None = None
    """Which effect of the taint. Left out: every effect."""

    def violations(self) -> Iterator[Violation]:
        """Kubernetes' own: `Exists` has no value, and only `Exists` may leave out the key."""
        if self.operator == "Exists" and self.value is not None:
            yield Violation(
                "value", self.value, "has no meaning when operator is Exists", "Leave it out.",
                ("operator",),
            )  # fmt: skip
        if self.operator == "Equal" and self.key is None:
            yield Violation(
                "key", "missing", "is needed when operator is Equal",
                "Set it, or set operator: Exists.", ("operator",),
            )  # fmt: skip


class Pool(Part):
    """Nodes of one kind."""

    name: Name
    """Name that placements refer to."""
    accelerator: LabelValue | None = None
    """GPU type, such as NVIDIA-H200. Left out: a CPU pool."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of one node."""
    cpus_per_node: Annotated[int, Field(ge=1, le=1024)] = 4
    """CPU cores of one node."""
    memory_gib_per_node: Annotated[int, Field(ge=1, le=16_384)] = 16
    """Memory of one node, in GiB."""
    min_nodes: Annotated[int, Field(ge=0, le=1000)] = 0
    """Nodes kept without load."""
    max_nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    """Nodes at most."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16, default_factory=dict)]
    """Labels that a node must carry."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that the pool's pods tolerate."""
    fallback_pool: Name | None = None
    """Pool of the same kind that takes replicas when this one is full."""

    def violations(self) -> Iterator[Violation]:
        """Node range the right way up; GPUs and their type said together; selectable labels."""
        # A rule, since structural schemas cannot say what a key looks like.
        for key in self.node_selector:
            if len(key) > 253 or not re.fullmatch(LABEL_KEY, key):
                yield Violation("nodeSelector", key, PATTERNS[LABEL_KEY], "Correct the key.")
        if self.max_nodes < self.min_nodes:
            yield Violation(
                "maxNodes", self.max_nodes, f"must be at least minNodes, {self.min_nodes}",
                "Raise it or lower minNodes.", ("minNodes",),
            )  # fmt: skip
        if self.accelerator is not None and self.gpus_per_node == 0:
            yield Violation(
                "gpusPerNode", 0, f"must be at least 1 with accelerator {self.accelerator}",
                "Set it, or leave out accelerator for a CPU pool.", ("accelerator",),
            )  # fmt: skip
        if self.accelerator is None and self.gpus_per_node > 0:
            yield Violation(
                "accelerator", "missing", f"is needed with gpusPerNode {self.gpus_per_node}",
                "Set the GPU type, such as NVIDIA-H200.", ("gpusPerNode",),
            )  # fmt: skip

    @property
    def computes_bfloat16(self) -> bool:
        """Whether its processors compute in bfloat16, as far as the accelerator's name tells."""
        return not _BEFORE_AMPERE.search(self.accelerator or "")

    @property
    def has_gpus(self) -> bool:
        """Whether nodes of this pool carry GPUs."""
        return self.gpus_per_node > 0
