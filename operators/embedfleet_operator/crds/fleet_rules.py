"""What crosses the fields of a fleet, in CEL."""

from __future__ import annotations

from typing import Final

from embedfleet.resources.base import LABEL_KEY, PATTERNS
from embedfleet_operator.crds.schema import Rule, keys

__all__ = ["FLEET_RULES", "MAX_POOLS"]

_HAS_TLS_FILES: Final = (
    "(has(self.certificateFile) || has(self.privateKeyFile) || has(self.clientCaFile))"
)
_HAS_TLS_SECRETS: Final = "(has(self.secretName) || has(self.clientCaSecretName))"

_POOL_NAMES: Final = "self.pools.map(q, q.name)"
MAX_POOLS: Final = 16

_STEP: Final = (
    f".filter(p, has(p.fallbackPool) && p.fallbackPool in {_POOL_NAMES})"
    ".map(p, self.pools.filter(q, q.name == p.fallbackPool)[0])"
)
"""From pools to their fallbacks."""

_NO_CIRCLE: Final = f"size(self.pools{_STEP * MAX_POOLS}) == 0"
"""Whoever still leads somewhere after as many steps as there are pools goes in a circle.

Written out step by step: the cost of what is bound to a name cannot be estimated.
"""

FLEET_RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "Toleration": (
        Rule(
            ".value",
            "self.operator != 'Exists' || !has(self.value)",
            "has no meaning when operator is Exists. Leave it out.",
            "self.value",
        ),
        Rule(
            ".key",
            "self.operator != 'Equal' || has(self.key)",
            "is needed when operator is Equal. Set it, or set operator: Exists.",
        ),
    ),
    "Pool": (
        Rule(
            ".nodeSelector",
            keys("nodeSelector", LABEL_KEY),
            f"keys: {PATTERNS[LABEL_KEY]}. Correct the key.",
        ),
        Rule(
            ".maxNodes",
            "self.maxNodes >= self.minNodes",
            "must be at least minNodes. Raise it or lower minNodes.",
            "self.maxNodes",
        ),
        Rule(
            ".gpusPerNode",
            "!has(self.accelerator) || self.gpusPerNode > 0",
            "must be at least 1 with an accelerator. Set it, or leave out accelerator for a CPU"
            " pool.",
        ),
        Rule(
            ".accelerator",
            "has(self.accelerator) || self.gpusPerNode == 0",
            "is needed with gpusPerNode. Set the GPU type, such as NVIDIA-H200.",
        ),
    ),
    "Tls": (
        Rule(
            ".secretName",
            f"!{_HAS_TLS_FILES} || !{_HAS_TLS_SECRETS}",
            "cannot stand beside files. Keep the files on a laptop, the Secrets on Kubernetes.",
        ),
        Rule(
            ".secretName",
            f"{_HAS_TLS_FILES} || !has(self.clientCaSecretName) || has(self.secretName)",
            "is needed with clientCaSecretName. Set it.",
        ),
        Rule(
            ".certificateFile",
            f"{_HAS_TLS_SECRETS} || has(self.certificateFile)",
            "is needed for TLS, or secretName. Set one, or leave out tls.",
        ),
        Rule(
            ".privateKeyFile",
            f"{_HAS_TLS_SECRETS} || has(self.privateKeyFile)",
            "is needed for TLS, or secretName. Set one, or leave out tls.",
        ),
    ),
    "FleetSpec": (
        Rule(
            ".gcsFaultTolerance",
            "!has(self.existingCluster) || !has(self.gcsFaultTolerance)",
            "has no meaning with existingCluster. Leave one of the two out.",
        ),
        Rule(
            ".pools",
            f"self.pools.all(p, !has(p.fallbackPool) || p.fallbackPool in {_POOL_NAMES})",
            "fallbackPool: is not a pool of this fleet. Name one of them.",
        ),
        Rule(
            ".pools",
            "self.pools.all(p, !has(p.fallbackPool) || self.pools.all(q, q.name != p.fallbackPool"
            " || (q.gpusPerNode > 0) == (p.gpusPerNode > 0)))",
            "fallbackPool: must be of the same kind, GPU or CPU. Choose a pool of the same kind.",
        ),
        Rule(".pools", _NO_CIRCLE, "fallbackPool: leads back to its pool. Break the circle."),
    ),
}
