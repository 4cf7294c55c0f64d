"""Where a run's workers are started: in this process, or by Ray Train on a machine or a cluster.

One worker without a cluster trains here: starting Ray takes seconds and hundreds of megabytes, and
the function that trains is the same. Several workers write to one output folder, so on a cluster
it has to lie where all machines see it.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from embedfleet.errors import EmbedfleetError, InvalidRequest, TrainingStopped
from embedfleet.messages import Role
from embedfleet.tuning.batches import Share
from embedfleet.tuning.checkpoints import Store
from embedfleet.tuning.sections import Strategy
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings
from embedfleet.tuning.training import train
from embedfleet.tuning.watching import Metrics, Watcher, read_metrics
from embedfleet.tuning.workers import Worker

__all__ = ["launch"]

Settings = EmbedderSettings | RerankerSettings

_POLL_SECONDS: Final = 0.5


def launch(settings: Settings, watcher: Watcher) -> Path:
    """Train to the end with as many workers as the settings say.

    Returns:
        The folder of the finished model.

    Raises:
        EmbedfleetError: What stopped it, from whichever worker.
    """
    workers = settings.workers
    if workers.count == 1 and not workers.address and workers.strategy is Strategy.DDP:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        on_gpu = workers.gpus is not None and workers.gpus > 0
        if on_gpu and not torch.cuda.is_available():
            raise InvalidRequest(
                f"workers.gpus is {workers.gpus}, but PyTorch finds no GPU here. Leave it out.",
                field="workers.gpus",
            )
        use_gpu = workers.gpus != 0 and torch.cuda.is_available()
        return train(settings, Worker(device="cuda" if use_gpu else "cpu"), watcher)
    return _by_ray(settings, watcher)


def _by_ray(settings: Settings, watcher: Watcher) -> Path:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    workers = settings.workers
    absolute = settings.model_copy(
        update={
            "output": settings.output.model_copy(
                update={"folder": str(Path(settings.output.folder).absolute())}
            )
        }
    )
    with tempfile.TemporaryDirectory(prefix="embedfleet-tune-") as scratch:
        _start_ray(ray, workers.address, math.ceil(workers.count * workers.cpus))
        try:
            gpus = _gpus_each(ray, settings)
            trainer = TorchTrainer(
                _work,
                train_loop_config={
                    "role": settings.role.value,
                    "settings": absolute.model_dump(mode="json", by_alias=True),
                    "gpus": gpus,
                },
                scaling_config=ScalingConfig(
                    num_workers=workers.count,
                    use_gpu=gpus > 0,
                    resources_per_worker=_resources(workers.cpus, gpus),
                ),
                torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
                run_config=RunConfig(
                    name="tune",
                    storage_path=(
                        str(Path(absolute.output.folder) / ".ray") if workers.address else scratch
                    ),
                ),
            )
            with _Tail(Path(absolute.output.folder), watcher):
                trainer.fit()
        except TrainingFailedError as error:
            raise _cause(error) from error
        finally:
            ray.shutdown()
    return Path(settings.output.folder) / "model"


def _start_ray(ray: Any, address: str, num_cpus: int) -> None:
    """Join a cluster, or start one on this machine for the run."""
    environment = {"env_vars": {"OMP_WAIT_POLICY": "passive"}}
    if address:
        ray.init(address=address, runtime_env=environment, log_to_driver=False)
    else:
        # Sized by what workers ask for, so that two can share one core.
        ray.init(
            num_cpus=num_cpus,
            include_dashboard=False,
            runtime_env=environment,
            log_to_driver=False,
            logging_level="warning",
        )


def _gpus_each(ray: Any, settings: Settings) -> float:
    """Decide how many GPUs a worker has: one where there are any, unless settings say."""
    there = float(ray.cluster_resources().get("GPU", 0))
    asked = settings.workers.gpus
    gpus = (1.0 if there else 0.0) if asked is None else asked
    if gpus * settings.workers.count > there:
        raise InvalidRequest(
            f"workers.count is {settings.workers.count} with {gpus:g} GPUs each, but the cluster "
            f"has {there:g}. Lower workers.count, or set workers.gpus to 0.",
            field="workers.count",
        )
    return gpus


def _resources(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _work(told: Mapping[str, Any]) -> None:
    """Train as one of the workers; Ray has made their process group."""
    from ray.train import get_context
    from ray.train.torch import get_device

    kind = EmbedderSettings if told["role"] == Role.EMBEDDER else RerankerSettings
    settings = kind.model_validate_json(json.dumps(told["settings"]), by_alias=True)
    workers = settings.workers
    torch.set_num_threads(settings.threads or max(1, int(workers.cpus)))
    context = get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    device = str(get_device()) if told["gpus"] else "cpu"
    sharded = workers.strategy is Strategy.FSDP
    train(settings, Worker(share, device, sharded), _Silent())


class _Silent:
    """Watches a worker that nobody sees."""

    def began(self, done: int, num_steps: int, whole_tokens: int) -> None:
        """Say nothing."""

    def stepped(self, metrics: Metrics) -> None:
        """Say nothing."""

    def saved(self, folder: Path) -> None:
        """Say nothing."""


class _Tail:
    """Tells a watcher here what workers write to the metrics' file."""

    def __init__(self, folder: Path, watcher: Watcher) -> None:
        self._folder, self._watcher = folder, watcher
        newest = Store(folder, 1).newest()
        # Steps after the newest checkpoint are taken, and told, again.
        self._told = self._first = int(newest.name.rpartition("-")[2]) if newest else 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="metrics", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._tell()

    def _follow(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._tell()

    def _tell(self) -> None:
        for record in read_metrics(self._folder):
            if record["step"] > self._told:
                if self._told == self._first:
                    self._watcher.began(record["step"] - 1, record["num_steps"], 0)
                self._told = record["step"]
                self._watcher.stepped(Metrics(**record))


def _cause(error: Exception) -> EmbedfleetError:
    """Find what a worker said in what Ray made of it."""
    failures = getattr(error, "worker_failures", {})
    for _, failure in sorted(failures.items()):
        inner: BaseException | None = failure
        while inner is not None:
            if isinstance(inner, EmbedfleetError):
                return inner
            inner = getattr(inner, "cause", None) or inner.__cause__
    return TrainingStopped(
        f"workers failed: {str(error).strip().splitlines()[-1]}. Run the same command to go on."
    )
