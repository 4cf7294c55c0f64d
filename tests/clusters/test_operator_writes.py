"""What the operator writes, as an API server takes it."""

from __future__ import annotations

import pytest
from control_plane import ControlPlane
from operator_course import REASON
from operator_world import World, wired

from embedfleet_operator.acting.actor import Actor
from embedfleet_operator.cluster.api import Api
from embedfleet_operator.cluster.kinds import kind_of
from embedfleet_operator.cluster.watching import Store

pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "everything is there"),
    pytest.mark.timeout(300),
]

FLEET = {
    "kind": "Fleet", "metadata": {"name": "search"},
    "spec": {"pools": [{"name": "cpu", "minNodes": 1}]},
}  # fmt: skip


@pytest.mark.parametrize("note", ["a" * 5000, "检索相关段落" * 300, "🙂" * 1024])
async def test_a_note_of_any_length_becomes_an_event(plane: ControlPlane, note: str) -> None:
    name = f"note-{len(note)}-here"
    async with World.of(plane, name) as world, wired(plane) as wire:
        await world.create(FLEET)
        await Actor(Api(wire.send), Store(), "me").say(
            await world.get("Fleet", "search"), "Start", note
        )
        (event,) = (await world.api.list_all(kind_of("Event"), name)).items
        kept = event["note"].removesuffix(" ...")
        assert note.startswith(kept)
        # Nothing that fits is left out.
        assert 1020 - 3 <= len(kept.encode()) <= 1020
