"""What a replica tells about itself: once at load, and to Serve's autoscaling all the time."""

import math

from embedfleet.messages import EmbedItem, EmbedOptions, InputType, Role
from embedfleet.rendering.replica import ReplicaArguments, ReplicaSettings
from embedfleet.runtime import EmbedderRuntime, load_model
from embedfleet.serving.replicas import EmbedderReplica, RerankerReplica

ARGUMENTS = ReplicaArguments(
    name="docs", role=Role.EMBEDDER, source="embedded/embedder", backend="echo"
)


def test_what_runs_is_one_line():
    line = load_model(ARGUMENTS, 1).summary(3)
    for part in ("docs", "cpu", "float32", "3 threads", "GiB", "kernels: ", "contract v1:"):
        assert part in line
    assert "\n" not in line


async def test_numbers_are_what_serve_takes():
    """Serve drops a replica's numbers for good if one is no number (ray 2.60 replica.py)."""
    runtime = EmbedderRuntime(load_model(ARGUMENTS, 1), ReplicaSettings())
    runtime.start()
    before = runtime.stats().autoscaling()
    await runtime.embed([EmbedItem(text="a text")], EmbedOptions(InputType.DOCUMENT))
    after = runtime.stats().autoscaling()
    await runtime.close()
    assert before["tokens_per_second"] == 0.0
    assert after["tokens_per_second"] > 0.0
    assert (after["queued_tokens"], after["running_tokens"]) == (0, 0)
    assert all(type(value) in (int, float) and math.isfinite(value) for value in after.values())


def test_serve_finds_the_method_by_its_name():
    for replica in (EmbedderReplica, RerankerReplica):
        assert callable(replica.record_autoscaling_stats)
