"""The one list of conditions and of the reasons they give: what each means and what to do about it.

Reasons are words that tools may match on, so they are only ever added. Messages are for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

__all__ = ["REASONS", "Observation", "Reason"]


class Observation(StrEnum):
    """Types of conditions, in the order in which a resource passes through them."""

    ACCEPTED = "Accepted"
    CACHED = "Cached"
    VERIFIED = "Verified"
    PROGRESSING = "Progressing"
    READY = "Ready"
    WARM = "Warm"
    DEGRADED = "Degraded"


class Reason(StrEnum):
    """Why a condition is what it is."""

    VALID = "Valid"
    INVALID = "Invalid"
    CONTRACT_CHANGED = "ContractChanged"
    FLEET_MISSING = "FleetMissing"
    SECRET_MISSING = "SecretMissing"
    GOLDEN_MISSING = "GoldenMissing"
    KUBERAY_MISSING = "KubeRayMissing"
    KUBERAY_OUTDATED = "KubeRayOutdated"
    NAME_TAKEN = "NameTaken"
    NOT_NEEDED = "NotNeeded"
    FETCHED = "Fetched"
    FETCHING = "Fetching"
    FETCH_FAILED = "FetchFailed"
    DIGEST_MISMATCH = "DigestMismatch"
    IN_USE = "InUse"
    MATCHES = "Matches"
    RECORDED = "Recorded"
    NO_GOLDEN = "NoGolden"
    VERIFYING = "Verifying"
    DRIFTED = "Drifted"
    ALL_MODELS = "AllModels"
    SOME_MODELS = "SomeModels"
    HELD = "Held"
    STARTING = "Starting"
    UPDATING = "Updating"
    UPGRADING = "Upgrading"
    SCALING = "Scaling"
    SETTLED = "Settled"
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    FAILED = "Failed"
    UPDATE_FAILED = "UpdateFailed"
    REPLICAS_MISSING = "ReplicasMissing"
    EDGE_MISSING = "EdgeMissing"
    APPLY_FAILED = "ApplyFailed"
    STUCK = "Stuck"
    TIMED_OUT = "TimedOut"
    HEALTHY = "Healthy"
    UNREACHABLE = "Unreachable"
    UNSUPPORTED = "Unsupported"


REASONS: Final[Mapping[Reason, str]] = {
    Reason.VALID: "The spec is right, alone and with the resources around it.",
    Reason.INVALID: "The spec breaks the rule in the message: correct the field it names.",
    Reason.CONTRACT_CHANGED: (
        "The vector contract of a model in use was changed. Vectors made before would not compare: "
        "undo the change, or give the new version another name."
    ),
    Reason.FLEET_MISSING: "No such Fleet in this namespace: create it, or correct spec.fleet.",
    Reason.SECRET_MISSING: "A Secret that the spec names is missing or lacks a key: create it.",
    Reason.GOLDEN_MISSING: (
        "The ConfigMap that spec.verification names is missing or holds no golden outputs of this "
        "role: create it with `embedfleet golden`, or name none."
    ),
    Reason.KUBERAY_MISSING: "The kinds of KubeRay are not installed: install its operator.",
    Reason.KUBERAY_OUTDATED: "KubeRay lacks a field that a fleet needs: upgrade it and its CRDs.",
    Reason.NAME_TAKEN: (
        "An object that it needs has the name of one that is not the operator's, which is left "
        "alone: give the resource another name, or delete or hand over what is there."
    ),
    Reason.NOT_NEEDED: "No ModelCache is named: replicas load from the source itself.",
    Reason.FETCHED: "The files are in the volume and their digests are right.",
    Reason.FETCHING: "The files are on their way.",
    Reason.FETCH_FAILED: "The files could not be fetched: the message holds the cause.",
    Reason.DIGEST_MISMATCH: (
        "The files are not those whose digests are given. Nothing is served from them: correct the "
        "revision or the digests."
    ),
    Reason.IN_USE: (
        "A deleted cache goes when no model serves from it any more: give the models in the "
        "message another cache and wait until they serve from that, or delete them."
    ),
    Reason.MATCHES: "Golden outputs come out within the bound.",
    Reason.RECORDED: "Golden outputs were recorded when this contract was first served.",
    Reason.NO_GOLDEN: "There is nothing to compare with yet; this does not keep a model out.",
    Reason.VERIFYING: "Golden outputs are being compared.",
    Reason.DRIFTED: (
        "Golden outputs differ beyond the bound. The new version is kept out: undo the change of "
        "backend or quantization, or give the new version another name."
    ),
    Reason.ALL_MODELS: "It holds for every model of the fleet.",
    Reason.SOME_MODELS: "It does not hold for the models in the message: look at those.",
    Reason.HELD: "Waits for the condition that the message names.",
    Reason.STARTING: "Replicas, or the cluster, are starting.",
    Reason.UPDATING: "A change is being applied; what runs goes on answering.",
    Reason.UPGRADING: "A second cluster is starting and will take over.",
    Reason.SCALING: "The number of replicas is on its way to the number wanted.",
    Reason.SETTLED: "Nothing is left to do.",
    Reason.SERVING: "Calls are answered.",
    Reason.SCALED_TO_ZERO: "No replica runs: the first call waits until one has started.",
    Reason.FAILED: "It does not come up: the message holds the replica's own error.",
    Reason.UPDATE_FAILED: "The new version does not come up; the old one goes on answering.",
    Reason.REPLICAS_MISSING: (
        "Fewer replicas run than spec.scaling.minReplicas: look for pending pods and full pools."
    ),
    Reason.EDGE_MISSING: "Too few pods of the edge are available: look at its Deployment.",
    Reason.APPLY_FAILED: (
        "The API server or Serve refuses what the fleet needs, or does not answer: the message "
        "holds its words. It is tried again."
    ),
    Reason.STUCK: (
        "It has been starting for more than 15 minutes: look for pending pods, and at the head's "
        "log. A head that lost its applications gets them again when its pod is deleted."
    ),
    Reason.TIMED_OUT: "KubeRay gave the cluster up for good: delete the RayService to start anew.",
    Reason.HEALTHY: "Nothing is wrong.",
    Reason.UNREACHABLE: (
        "Ray's dashboard, or a model that has to be asked, does not answer, so nothing is known: "
        "look at the head's pod, and whether a NetworkPolicy or a wrong token keeps the operator "
        "out."
    ),
    Reason.UNSUPPORTED: (
        "This release checks routes but does not answer to their names yet: clients name a model."
    ),
}
