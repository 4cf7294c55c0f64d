"""From all that is known about a fleet to what is wanted of the cluster and said in statuses.

Pure: the same knowledge gives the same decision, however often and after whatever fault it is
made. What cannot serve is left out or goes on as it last served well, so that no model can block
another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from embedfleet.golden import Golden
from embedfleet.rendering.names import Model, application
from embedfleet.rendering.plan import Impact, Plan
from embedfleet.rendering.serve import ServeConfig
from embedfleet.resources import Fleet
from embedfleet.resources.rules import pool_violations
from embedfleet_operator.conditions.reasons import REASONS, Observation, Reason
from embedfleet_operator.conditions.verdicts import Refusal, standing
from embedfleet_operator.crds.status import ModelStatus, Status, Truth
from embedfleet_operator.deciding.differences import covers, owner, signed
from embedfleet_operator.deciding.owning import intrusion
from embedfleet_operator.observing.held import running_goldens
from embedfleet_operator.observing.remembering import contract_moved, remembered
from embedfleet_operator.observing.seen import Seen
from embedfleet_operator.planning.plan import awaited, plan
from embedfleet_operator.rendering import Manifest, render, unknown_fields
from embedfleet_operator.rendering.manifests import COMPONENT_LABEL, SERVED
from embedfleet_operator.rendering.rayservice import serve_config
from embedfleet_operator.reporting.model import may_serve
from embedfleet_operator.reporting.reports import model_report, previous, statuses
from embedfleet_operator.reporting.verified import (
    GoldenObservation,
    drifted,
    fingerprint,
    verified,
)

__all__ = ["Decision", "decide", "secrets_of"]

_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Decision:
    """What is wanted, and what is said.

    Attributes:
        manifests: Everything that a fleet needs on Kubernetes; None leaves all as it is.
        config: What Serve is to run.
        plan: What is not yet so.
        refusal: Why nothing is done; None if something is.
        statuses: By resource, such as `Embedder/docs`.
    """

    manifests: tuple[Manifest, ...] | None
    config: ServeConfig | None
    plan: Plan
    refusal: Refusal | None
    statuses: Mapping[str, Status]

    @property
    def moves(self) -> bool:
        """Whether anything is on its way, so that it is worth looking again soon."""
        return any(
            each.type == Observation.PROGRESSING and each.status is Truth.TRUE
            for status in self.statuses.values()
            for each in status.conditions or ()
        )

    @property
    def refused(self) -> dict[str, str]:
        """Why resources are not accepted, by resource."""
        return {
            ref: each.message
            for ref, status in self.statuses.items()
            for each in status.conditions or ()
            if each.type == Observation.ACCEPTED and each.status is Truth.FALSE
        }

    def failed(self, seen: Seen, message: str) -> Decision:
        """Say that it could not be made."""
        return replace(self, statuses=statuses(_known(seen), self.refusal, self.plan, message))

    def refused_for(self, seen: Seen, refusal: Refusal) -> Decision:
        """Say that it must not be made."""
        return _nothing(_known(seen), refusal)


def decide(seen: Seen) -> Decision:
    """Decide what is to be done about a fleet."""
    seen = _known(seen)
    fleet, refusal = seen.fleet.resource, _refusal(seen)
    if fleet is None or refusal is not None:
        return _nothing(seen, refusal)
    target = replace(seen.target, certificates_digest=_certificates_digest(fleet, seen.secrets))
    models = _serving(seen, fleet)
    goldens = _goldens(seen, models)
    manifests = render(fleet, models, target, goldens=goldens, caches=seen.caches)
    config = serve_config(fleet, models, goldens)
    if lacking := _lacking(seen, manifests):
        text = f"KubeRay lacks {', '.join(lacking)}: upgrade it and its definitions."
        refusal = Refusal(Reason.KUBERAY_OUTDATED, text)
        return _nothing(seen, refusal)
    change = _plan(seen, fleet, manifests, config)
    memory = remembered(fleet, _proven(seen, models, config))
    said = statuses(seen, None, awaited(change, seen.serve.deployed, config))
    return Decision((*manifests, memory), config, change, None, said)


def _nothing(seen: Seen, refusal: Refusal | None) -> Decision:
    return Decision(None, None, Plan(), refusal, statuses(seen, refusal, Plan()))


def _ref(model: Model) -> str:
    return f"{model.kind}/{model.name}"


def _lacking(seen: Seen, manifests: Sequence[Manifest]) -> list[str]:
    """List the fields that a fleet needs of KubeRay's definition and that it has not."""
    services = [each for each in manifests if each["kind"] == "RayService"]
    definition = seen.kuberay
    return [path for each in services if definition for path in unknown_fields(each, definition)]


def secrets_of(fleet: Fleet) -> dict[str, tuple[str, tuple[str, ...]]]:
    """List the Secrets that a fleet names: the field that does, and the keys it needs."""
    spec, tls = fleet.spec, fleet.spec.tls
    gcs = spec.gcs_fault_tolerance
    named = {
        "spec.auth.tokenSecretName": (spec.auth and spec.auth.token_secret_name, ("auth_token",)),
        "spec.tls.secretName": (tls and tls.secret_name, ("tls.crt", "tls.key")),
        "spec.tls.clientCaSecretName": (tls and tls.client_ca_secret_name, ("ca.crt",)),
        "spec.gcsFaultTolerance.passwordSecretName": (
            gcs and gcs.password_secret_name, ("password",),
        ),
    }  # fmt: skip
    return {name: (field, keys) for field, (name, keys) in named.items() if name}


def _refusal(seen: Seen) -> Refusal | None:
    """Say why nothing may be done for a fleet; None if something may."""
    fleet = seen.fleet.resource
    if seen.fleet.refusal is not None or fleet is None:
        return seen.fleet.refusal
    for name, (path, keys) in secrets_of(fleet).items():
        secret = seen.secrets.get(name)
        lacking = [key for key in keys if key not in (secret or _NOTHING).get("data", _NOTHING)]
        if secret is None:
            text = f"{path} is {name}: there is no such Secret in this namespace. Create it."
            return Refusal(Reason.SECRET_MISSING, text)
        if lacking:
            text = f"{path} is {name}: that Secret has no key {', '.join(lacking)}. Add it."
            return Refusal(Reason.SECRET_MISSING, text)
    if fleet.spec.existing_cluster is None and seen.kuberay is None:
        return Refusal(Reason.KUBERAY_MISSING, REASONS[Reason.KUBERAY_MISSING])
    return intrusion(seen)


def _certificates_digest(fleet: Fleet, secrets: Mapping[str, Manifest | None]) -> str:
    tls = fleet.spec.tls
    names = (tls.secret_name, tls.client_ca_secret_name) if tls else ()
    data = [(secrets.get(name) or _NOTHING).get("data") for name in names if name]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest() if data else ""


def _known(seen: Seen) -> Seen:
    """Add to what was seen what follows from it; again, it adds nothing."""
    return _verified(_fitting(_with_contracts_kept(_own(seen))))


def _own(seen: Seen) -> Seen:
    """Forget what served of others of the same names: a model that is made anew owes them nothing.

    Deleting a model and applying it again is how its contract is changed on purpose.
    """
    uids = {each.ref: each.raw["metadata"].get("uid") for each in seen.models}
    served = {ref: m for ref, m in seen.served.items() if m.metadata.uid in (None, uids.get(ref))}
    return replace(seen, served=served)


def _with_contracts_kept(seen: Seen) -> Seen:
    """Refuse what would change the outputs of a model that has served: indexes rest on them."""
    models = []
    for each in seen.models:
        before = seen.served.get(each.ref)
        moved = contract_moved(before, each.resource) if before and each.resource else ""
        if moved:
            text = f"{moved} was changed. {REASONS[Reason.CONTRACT_CHANGED]}"
            each = each.refused(Refusal(Reason.CONTRACT_CHANGED, text))
        models.append(each)
    return replace(seen, models=tuple(models))


def _fitting(seen: Seen) -> Seen:
    """Refuse defaults that the model which runs cannot do: its replicas would be stopped.

    One that does not say goes on as it last served well, and if it never did, may try.
    """
    models = []
    for each in seen.models:
        refusal = seen.misfits.get(each.ref)
        if refusal and (refusal.reason is Reason.INVALID or each.ref in seen.served):
            each = each.refused(refusal)
        models.append(each)
    return replace(seen, models=tuple(models))


def _verified(seen: Seen) -> Seen:
    """Hold what Serve runs against golden outputs."""
    fleet = seen.fleet.resource
    if fleet is None:
        return seen
    image = fleet.spec.image or seen.target.image
    found = {}
    for each in seen.models:
        model = each.resource
        if model is None or not _fits(model, fleet):
            continue
        name, golden = application(model), seen.goldens.get(each.ref)
        config = serve_config(fleet, [model], {name: golden} if golden else {})
        (wanted,) = (app for app in config["applications"] if app["name"] == name)
        deployed = seen.serve.deployed.get(name)
        before = previous(ModelStatus, each.raw)
        verdict, facts = verified(
            GoldenObservation(
                golden=golden,
                pinned=model.spec.verification.golden_config_map_name is not None,
                wanted=fingerprint(wanted, image),
                applied=fingerprint(deployed, image) if deployed else "",
                application=seen.serve.applications.get(name),
                previous=before,
            ),
            seen.now,
        )
        refused = seen.foreseen.get(each.ref) or ""
        if refused and golden is not None and verdict.reason is not Reason.DRIFTED:
            verdict, facts = drifted(refused, golden, fingerprint(wanted, image), seen.now)
        elif verdict.reason is Reason.VERIFYING and not seen.serve.answers:
            # What was found before holds until somebody can look again.
            verdict = standing(before, Observation.VERIFIED) or verdict
        found[each.ref] = (verdict, facts)
    return replace(seen, verified=found)


def _serving(seen: Seen, fleet: Fleet) -> list[Model]:
    """Choose the version of each model that is to serve: the spec's, the last good one, or none."""
    found: list[Model] = []
    for each in seen.models:
        model = each.resource
        unknown = seen.foreseen.get(each.ref, "") is None
        if (
            model is None
            or unknown
            or not may_serve(model_report(seen, each, Impact.NO_CHANGE, None))
        ):
            model = seen.served.get(each.ref)
        # The last good version may stand in a pool that is no more.
        if model is not None and _fits(model, fleet):
            found.append(model)
    return found


def _fits(model: Model, fleet: Fleet) -> bool:
    """Whether a fleet has the pools of a model: without them there is nothing to render."""
    return not any(pool_violations(model, fleet))


def _goldens(seen: Seen, models: Sequence[Model]) -> dict[str, Golden]:
    """Choose what each application is held to: a version that goes on, to what it runs with."""
    current = {each.ref: each.resource for each in seen.models}
    wanted = [each for each in models if each is current.get(_ref(each))]
    found = {application(each): seen.goldens.get(_ref(each)) for each in wanted}
    going_on = {application(each) for each in models} - found.keys()
    goldens = {name: golden for name, golden in found.items() if golden is not None}
    return goldens | running_goldens(seen, going_on)


def _proven(seen: Seen, models: Sequence[Model], config: ServeConfig) -> list[Model]:
    """List the models as they serve well now, or else as they last did."""
    wanted = {each["name"]: each for each in config["applications"]}
    found = []
    for model in models:
        name = application(model)
        state = seen.serve.applications.get(name)
        runs = state is not None and state.status == "RUNNING"
        if runs and covers(seen.serve.deployed.get(name), wanted[name]):
            found.append(model)
        elif before := seen.served.get(_ref(model)):
            found.append(before)
    return found


def _plan(seen: Seen, fleet: Fleet, manifests: Sequence[Manifest], config: ServeConfig) -> Plan:
    observed = list(_observed(seen, manifests))
    if fleet.spec.existing_cluster is None:
        return plan(observed, manifests)
    if not seen.serve.answers:
        return Plan()
    running = {**config, "applications": list(seen.serve.deployed.values())}
    return plan(observed, manifests, serve=(running if seen.serve.deployed else None, config))


def _observed(seen: Seen, manifests: Sequence[Manifest]) -> Iterator[Manifest]:
    """Give the live objects; as it is wanted each that nothing will be written to.

    What a webhook or a definition's defaults add is then no change that waits to be made.
    """
    reference = owner(seen.fleet.raw)
    wanted = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    for live in seen.owned:
        if live["metadata"]["labels"].get(COMPONENT_LABEL) == SERVED:
            continue
        found = wanted.get((live["kind"], live["metadata"]["name"]))
        yield found if found and covers(live, signed(found, reference)) else live
