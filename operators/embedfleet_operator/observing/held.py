"""What replicas that run were told, read from the configuration that Serve was given. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from embedfleet.golden import Golden
from embedfleet.rendering.fitting import to_be_fitted
from embedfleet.rendering.names import Model, application
from embedfleet.rendering.replica import GoldenSettings, ReplicaSettings
from embedfleet_operator.observing.judging import Judged
from embedfleet_operator.observing.seen import Seen
from embedfleet_operator.rendering.rayservice import serve_config, told_config

__all__ = ["gets_other_golden", "other_defaults", "running_goldens"]


def running_goldens(seen: Seen, names: Collection[str]) -> dict[str, Golden]:
    """Read the golden outputs that applications run with, by name.

    What Serve does not tell, because it is silent or starts anew, is as it was last told to it.
    """
    configs = dict(seen.serve.deployed)
    if not configs.keys() >= set(names):
        configs = _told(seen) | configs
    found = {name: _settings(configs.get(name)) for name in names}
    return {name: settings.golden for name, settings in found.items() if settings}


def _told(seen: Seen) -> dict[str, Mapping[str, Any]]:
    services = (each for each in seen.owned if each["kind"] == "RayService")
    configs = (config for service in services if (config := told_config(service)))
    return {each["name"]: each for config in configs for each in config["applications"]}


def gets_other_golden(seen: Seen, each: Judged[Model]) -> bool:
    """Whether a version that runs is to be held to something else than before.

    Other arguments make other replicas, which are held to it before they run. The first outputs
    recorded are the running version's own.
    """
    model, golden = each.resource, seen.goldens.get(each.ref)
    if model is None or golden is None or each.refusal is not None:
        return False
    deployed = _running(seen, model)
    if deployed is None:
        return False
    before = _settings(deployed)
    if before is None:
        return model.spec.verification.golden_config_map_name is not None
    return before != GoldenSettings(golden=golden, bound=model.spec.verification.bound)


def other_defaults(seen: Seen, each: Judged[Model]) -> ReplicaSettings | None:
    """Give what a version that runs is to take over and may not be able to; None if nothing is."""
    model, fleet = each.resource, seen.fleet.resource
    if model is None or fleet is None or each.refusal is not None:
        return None
    deployed = _running(seen, model)
    wanted = serve_config(fleet, [model], {})["applications"]
    (after,) = (app for app in wanted if app["name"] == application(model))
    return to_be_fitted(deployed, after) if deployed else None


def _running(seen: Seen, model: Model) -> Mapping[str, Any] | None:
    """Give the application of a model as Serve has it; None if no replica of it answers."""
    name = application(model)
    state = seen.serve.applications.get(name)
    return seen.serve.deployed.get(name) if state is not None and state.pids else None


def _settings(deployed: Mapping[str, Any] | None) -> GoldenSettings | None:
    if deployed is None:
        return None
    (deployment,) = deployed["deployments"]
    try:
        return GoldenSettings.model_validate((deployment.get("user_config") or {}).get("golden"))
    except ValidationError:
        return None
