"""Ray clusters for tests: a Serve that is a value, and what an operator reaches it by."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedfleet.resources import Fleet
from embedfleet_operator.acting.fleets import Connect
from embedfleet_operator.acting.serve_clusters import ServeCluster, read_state, runs
from embedfleet_operator.observing.seen import ServeState

__all__ = ["FAILS", "Guest", "Serve", "guests"]

FAILS = "FAIL"
"""A model whose configuration holds this word does not start."""
ERROR = (
    "Traceback:\n  ...\nembedfleet.errors.InvalidRequest: The instruction is no good. Change it."
)


@dataclass
class Serve:
    """A Ray cluster: the configuration that was put, and whether anybody looked since."""

    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    answering: dict[str, int] = field(default_factory=dict)
    starting: set[str] = field(default_factory=set)
    puts: int = 0

    def put(self, config: Mapping[str, Any]) -> None:
        self.puts += 1
        wanted = {each["name"]: copy.deepcopy(each) for each in config["applications"]}
        self.starting = {
            name for name, each in wanted.items() if self.applications.get(name) != each
        }
        self.applications = wanted
        self.answering = {name: pid for name, pid in self.answering.items() if name in wanted}

    def details(self) -> dict[str, Any]:
        """Give the answer to `GET /api/serve/applications/`."""
        found = {name: self._application(name) for name in sorted(self.applications)}
        for name in self.starting:
            if FAILS not in json.dumps(self.applications[name]):
                self.answering[name] = 1000 + len(name)
        self.starting = set()
        return {"applications": found}

    def _application(self, name: str) -> dict[str, Any]:
        config = self.applications[name]
        status, message = "RUNNING", ""
        if name in self.starting:
            status = "DEPLOYING"
        elif FAILS in json.dumps(config):
            status, message = "DEPLOY_FAILED", ERROR
        pid = self.answering.get(name)
        running = [{"state": "RUNNING", "pid": pid}] if pid else []
        deployment = {"message": "", "target_num_replicas": 1, "replicas": running}
        return {
            "status": status,
            "message": message,
            "deployed_app_config": {"runtime_env": {}, **config},
            "deployments": {"main": deployment},
        }


@dataclass(frozen=True)
class Guest:
    """A Ray cluster that ran before, reached without a network."""

    serve: Serve

    async def observe(self) -> ServeState:
        return read_state(self.serve.details())

    async def deploy(self, config: dict[str, Any], state: ServeState) -> bool:
        if runs(state, config):
            return False
        self.serve.put(config)
        return True

    async def clear(self) -> None:
        self.serve.put({"applications": []})


class Silent:
    """A Ray cluster that is not there yet."""

    async def observe(self) -> ServeState:
        return ServeState("Ray's dashboard does not answer.")

    async def deploy(self, config: dict[str, Any], state: ServeState) -> bool:
        return False

    async def clear(self) -> None:
        pass


def guests(cluster: ServeCluster) -> Connect:
    """Give fleets on a cluster that ran before this one, and the others none that answers."""

    def connect(fleet: Fleet, dashboard: str, token: str) -> ServeCluster:
        return Silent() if fleet.spec.existing_cluster is None else cluster

    return connect
