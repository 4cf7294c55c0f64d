"""A pod's life on the node: init containers, containers, probes, restarts, its end.

Without images: a container's command runs from this machine's environment. Without limits: what
a container may use is what the machine has.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.environment import Find, Missing, arguments, variables
from e2e.memory import Memory
from e2e.place import Image, Place, Resource
from e2e.probes import verdicts
from e2e.processes import Launch, Running, start
from e2e.statuses import Container, now, phase, status
from e2e.volumes import ACCOUNT_FOLDER, Folders, Mount, mounts, volumes

__all__ = ["Pod"]

_log = logging.getLogger("node")

_RETRY_SECONDS = 1.0
_LONGEST_BACKOFF = 30.0
_LAST_WORDS = 4096


@dataclass
class Pod:
    """One pod.

    Attributes:
        resource: As the API server has it.
        report: Writes its status.
    """

    resource: dict[str, Any]
    number: int
    place: Place
    report: Callable[[dict[str, Any]], Any]
    first: list[Container] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    stopping: bool = False

    def __post_init__(self) -> None:
        spec, metadata = self.resource["spec"], self.resource["metadata"]
        self.first = [Container(c["name"], c["image"]) for c in spec.get("initContainers", ())]
        self.containers = [Container(c["name"], c["image"]) for c in spec["containers"]]
        self.name, self.namespace = metadata["name"], metadata["namespace"]
        self.status: dict[str, Any] = {}
        self._made: dict[str, Path] = {}
        self._account: Path | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Live until the end; cancelled to be killed."""
        self.net = await asyncio.to_thread(self.place.network.join, self.number)
        self._memory = Memory(self.net.name)
        self._memory.make()
        folder = self.place.folder / "pods" / f"{self.namespace}.{self.name}.{self.number}"
        self.folders = Folders(
            folder, self.place.memory / str(self.number), self.place.folder / "claims"
        )
        reporting = asyncio.create_task(self._report())
        try:
            await self._prepared()
            await self._initialize()
            if phase(self.first, self.containers) != "Failed":
                async with asyncio.TaskGroup() as group:
                    for spec, state in zip(
                        self.resource["spec"]["containers"], self.containers, strict=True
                    ):
                        group.create_task(self._keep(spec, state, self._again))
        finally:
            for each in self.running.values():
                each.signal(signal.SIGKILL)
            await asyncio.gather(*(each.wait() for each in self.running.values()))
            reporting.cancel()
            await asyncio.to_thread(self._clean)
            await self._write()

    async def stop(self, seconds: float) -> None:
        """Ask every container to end, and end those that have not in time."""
        self.stopping = True
        self._say()
        specs = {each["name"]: each for each in self.resource["spec"]["containers"]}
        await asyncio.gather(
            *(
                self._stop(specs.get(name, {}), each, seconds)
                for name, each in list(self.running.items())
            )
        )

    async def _stop(self, spec: Resource, running: Running, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        hook = spec.get("lifecycle", {}).get("preStop", {})
        ended = asyncio.create_task(running.wait())
        if "exec" in hook:
            asked = asyncio.create_task(running.run(hook["exec"]["command"], seconds))
            await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
        elif "sleep" in hook:
            await asyncio.wait({ended}, timeout=min(seconds, hook["sleep"]["seconds"]))
        running.signal(signal.SIGTERM)
        await asyncio.wait({ended}, timeout=max(0.0, deadline - loop.time()))
        running.signal(signal.SIGKILL)
        await ended

    async def _prepared(self) -> None:
        """Make volumes, however long what they hold is missing."""
        while True:
            try:
                await asyncio.to_thread(self._make)
            except Missing as missing:
                for each in (*self.first, *self.containers):
                    each.message = str(missing)
                self._say()
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    def _make(self) -> None:
        spec = self.resource["spec"]
        account = spec.get("serviceAccountName") or "default"

        def token() -> str:
            return self.place.token(self.namespace, account)

        self._made = volumes(self.resource, self.folders, self._find, token)
        asked = spec.get("automountServiceAccountToken")
        if asked is None:
            asked = self.place.automounts(self.namespace, account)
        if asked:
            self._account = self.folders.own / "account"
            self._account.mkdir(parents=True, exist_ok=True)
            (self._account / "token").write_text(token())
            (self._account / "namespace").write_text(self.namespace)
            (self._account / "ca.crt").write_bytes(self.place.certificate)

    @property
    def _find(self) -> Find:
        return lambda kind, name: self.place.find(self.namespace, kind, name)

    async def _initialize(self) -> None:
        specs = self.resource["spec"].get("initContainers", ())
        for spec, state in zip(specs, self.first, strict=True):
            await self._keep(spec, state, lambda code: code != 0 and self._again(code))
            if state.code:
                return

    def _again(self, code: int) -> bool:
        policy = self.resource["spec"].get("restartPolicy", "Always")
        return not self.stopping and (policy == "Always" or (policy == "OnFailure" and code != 0))

    async def _keep(self, spec: Resource, state: Container, again: Callable[[int], bool]) -> None:
        """Run a container, and again as long as it is to be."""
        delay = _RETRY_SECONDS
        while not self.stopping:
            try:
                launch, words = await asyncio.to_thread(self._launch, spec, state)
            except Missing as missing:
                state.waiting, state.message = "CreateContainerConfigError", str(missing)
                self._say()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            code = await self._once(spec, state, launch)
            state.started = state.ready = False
            state.terminated = self._ended(state, code, words, spec)
            _log.info("%s/%s %s ended with %s", self.namespace, self.name, state.name, code)
            if not again(code):
                break
            state.restarts += 1
            state.waiting = "CrashLoopBackOff" if state.restarts > 1 else "ContainerCreating"
            state.message = f"back-off {delay:.0f}s restarting failed container"
            self._say()
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_BACKOFF)
        state.over, state.waiting = True, ""
        state.terminated = state.terminated or {"exitCode": 137, "reason": "Error"}
        self._say()

    def _launch(self, spec: Resource, state: Container) -> tuple[Launch, Path]:
        repository = re.sub(r"(@.*|:[^/:]*)$", "", spec["image"])
        image = self.place.images.get(repository, Image())
        asked = variables(self.resource, spec, self.net.address, self._find)
        known = {**self.place.variables, "HOSTNAME": self.name, "HOME": image.folder, **asked}
        words = self.folders.own / f"words-{state.name}-{state.restarts}"
        words.parent.mkdir(parents=True, exist_ok=True)
        words.touch()
        mounted = mounts(spec, self._made)
        mounted.append(Mount(words, spec.get("terminationMessagePath", "/dev/termination-log")))
        if self._account is not None:
            mounted.append(Mount(self._account, ACCOUNT_FOLDER, read_only=True))
        launch = Launch(
            command=arguments(spec, image.entrypoint, known),
            variables=known,
            namespace=self.net,
            host=self.name,
            scratch=self.folders.own / f"root-{state.name}-{state.restarts}",
            resolver=self.place.network.gateway,
            search=f"{self.namespace}.svc.cluster.local svc.cluster.local cluster.local",
            folder=spec.get("workingDir") or image.folder,
            mounts=mounted,
            kept=self.place.kept,
            group=self._memory.members,
        )
        return launch, words

    def log(self, container: str) -> Path:
        """Say where a container's log is."""
        return self.place.folder / "logs" / f"{self.namespace}_{self.name}_{container}.log"

    async def _once(self, spec: Resource, state: Container, launch: Launch) -> int:
        running = await start(launch, self.log(state.name))
        self.running[state.name] = running
        state.waiting, state.message, state.started_at = "", "", now()
        state.started = "startupProbe" not in spec
        state.ready = state.started and "readinessProbe" not in spec
        self._say()
        watching = asyncio.create_task(self._watch(spec, state, running))
        try:
            code = await running.wait()
        finally:
            watching.cancel()
        # Only what has ended: whoever ends this pod at once kills what is left, and waits for it.
        self.running.pop(state.name, None)
        return code

    async def _watch(self, spec: Resource, state: Container, running: Running) -> None:
        """Judge a container by its probes."""
        if "startupProbe" in spec:
            async for well in verdicts(spec["startupProbe"], spec, running):
                if well:
                    break
                return running.signal(signal.SIGKILL)
            state.started, state.ready = True, "readinessProbe" not in spec
            self._say()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in spec:
                group.create_task(self._follow_readiness(spec, state, running))
            if "livenessProbe" in spec:
                group.create_task(self._end_if_dead(spec, running))

    async def _follow_readiness(self, spec: Resource, state: Container, running: Running) -> None:
        async for ready in verdicts(spec["readinessProbe"], spec, running):
            if ready != state.ready:
                state.ready = ready
                self._say()

    async def _end_if_dead(self, spec: Resource, running: Running) -> None:
        async for alive in verdicts(spec["livenessProbe"], spec, running):
            if not alive and not self.stopping:
                _log.info("%s/%s %s does not live", self.namespace, self.name, spec["name"])
                grace = self.resource["spec"].get("terminationGracePeriodSeconds", 30)
                return await self._stop(spec, running, grace)

    def _ended(self, state: Container, code: int, words: Path, spec: Resource) -> dict[str, Any]:
        message = words.read_text(errors="replace")[-_LAST_WORDS:]
        fallback = spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and code and fallback:
            message = self.log(state.name).read_text(errors="replace")[-2048:]
        return {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": state.started_at,
            "finishedAt": now(),
            "message": message,
        }

    def _say(self) -> None:
        self._changed.set()

    async def _report(self) -> None:
        self._say()
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write()

    async def _write(self) -> None:
        said = status(self.first, self.containers, self.net.address, self.status)
        if said != self.status:
            await self.report(said)
            self.status = said

    def _clean(self) -> None:
        with suppress(OSError):
            self.place.network.leave(self.net)
        self._memory.remove()
        for folder in (self.folders.own, self.folders.memory):
            shutil.rmtree(folder, ignore_errors=True)
