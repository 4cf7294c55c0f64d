"""`--set FIELD=VALUE` reads values as the file of settings does."""

import click
import pytest

from embedfleet.cli.options import changed_fields


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("seed=3", "seed", 3),
        ("optimizer.learningRate=1e-3", "optimizer.learningRate", 0.001),
        ("model.source=Qwen/Qwen3-Embedding-0.6B", "model.source", "Qwen/Qwen3-Embedding-0.6B"),
        ("data=[{path: a=b}]", "data", [{"path": "a=b"}]),
        ("lora=null", "lora", None),
        ("lora=", "lora", None),
        ("revision='1e5'", "revision", "1e5"),
    ],
)
def test_values(change: str, field: str, value: object) -> None:
    assert changed_fields([change]) == {field: value}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "write it as FIELD=VALUE"),
        ("=3", "write it as FIELD=VALUE"),
        ("batch.size=[", "--set batch.size: '[' is not YAML"),
        ("seed=!!python/name:os.system", "is not YAML"),
    ],
)
def test_refusals(change: str, said: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        changed_fields([change])
    assert said in refused.value.message
