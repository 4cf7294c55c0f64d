"""What the router tells of running models while Serve's controller fails, hangs and comes back."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from call_context import Context, received
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from embedfleet.errors import Unavailable
from embedfleet.wire import embedding_pb2 as wire_embedding
from embedfleet.wire import model_pb2 as wire_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, about how it uses pydantic
    from ray.exceptions import GetTimeoutError, RayActorError
    from ray.serve.exceptions import RayServeException

    from embedfleet.serving.router import Router
    from embedfleet.serving.running import KEPT_SECONDS, RunningApplications

BOTH = frozenset({"emb-docs", "rer-docs"})
Health = health_pb2.HealthCheckResponse
GONE = [RayActorError(), GetTimeoutError("2 s"), RayServeException("no controller")]
PATIENCE = 0.05


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Controller:
    """Answers with what it is told to: applications, an error, or only once it is let."""

    def __init__(self, answer: frozenset[str] | Exception) -> None:
        self.answer = answer
        self.num_asked = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self) -> frozenset[str]:
        self.num_asked += 1
        assert self.free.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@asynccontextmanager
async def hanging(controller: Controller) -> AsyncIterator[None]:
    controller.free.clear()
    try:
        yield
    finally:
        controller.free.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def view(controller: Controller, clock: Clock) -> RunningApplications:
    return RunningApplications(controller, clock, PATIENCE)


async def test_callers_share_an_answer_for_a_second() -> None:
    controller, clock = Controller(BOTH), Clock()
    running = RunningApplications(controller, clock)
    assert await asyncio.gather(*(running.get() for _ in range(9))) == [BOTH] * 9
    clock.now += 1.0
    assert await running.get() == BOTH
    assert controller.num_asked == 1
    clock.now += 0.1
    controller.answer = frozenset()
    assert await running.get() == frozenset()
    assert controller.num_asked == 2


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
async def test_without_an_answer_so_far_the_call_can_be_tried_again(error: Exception) -> None:
    running = RunningApplications(Controller(error), Clock())
    with pytest.raises(Unavailable, match=type(error).__name__) as raised:
        await running.get()
    assert raised.value.retry_after_seconds == 1.0


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
async def test_the_last_answer_holds_for_a_while(error: Exception) -> None:
    controller, clock = Controller(BOTH), Clock()
    running = RunningApplications(controller, clock)
    await running.get()
    controller.answer = error
    clock.now += KEPT_SECONDS
    assert await running.get() == BOTH
    clock.now += 1.1
    with pytest.raises(Unavailable):
        await running.get()
    controller.answer = frozenset({"emb-docs"})
    clock.now += 1.1
    assert await running.get() == {"emb-docs"}, "it is back"


async def test_an_ask_that_hangs_is_the_only_one() -> None:
    controller, clock = Controller(BOTH), Clock()
    running = view(controller, clock)
    async with hanging(controller):
        for _ in range(5):
            with pytest.raises(Unavailable, match="TimeoutError"):
                await running.get()
            clock.now += 10.0
    await until(lambda: running._known is not None)
    assert controller.num_asked == 1
    clock.now += 10.0
    assert await running.get() == BOTH
    assert controller.num_asked == 2


async def test_while_an_ask_hangs_the_last_answer_is_given_at_once() -> None:
    controller, clock = Controller(BOTH), Clock()
    running = view(controller, clock)
    await running.get()
    clock.now += 2.0
    async with hanging(controller):
        assert await running.get() == BOTH
        clock.now += 2.0
        # With its patience over, a caller does not even yield to the event loop for long.
        async with asyncio.timeout(5):
            assert [await running.get() for _ in range(100)] == [BOTH] * 100
        clock.now += KEPT_SECONDS
        with pytest.raises(Unavailable):
            await running.get()
    assert controller.num_asked == 2


async def test_a_caller_that_leaves_takes_no_answer_from_the_others() -> None:
    controller = Controller(BOTH)
    running = RunningApplications(controller, Clock())
    async with hanging(controller):
        leaves, stays = (asyncio.create_task(running.get()) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.wait([leaves])
    assert leaves.cancelled()
    assert await stays == BOTH


async def test_what_is_no_fault_of_ray_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        await RunningApplications(Controller(KeyError("a bug")), Clock()).get()


def router(controller: Controller, *find: Any) -> Router:
    made = Router(controller, *find)
    model = {"name": "docs", "role": "embedder", "application": "emb-docs"}
    made.reconfigure({"fleet": "f", "models": [model]})
    return made


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListModels", wire_model.ListModelsRequest()),
        ("GetModel", wire_model.GetModelRequest(model=b"docs")),
        ("Check", health_pb2.HealthCheckRequest(service="docs")),
        ("List", health_pb2.HealthListRequest()),
    ],
)
async def test_the_router_calls_it_no_bug(method: str, request_: Message) -> None:
    context = Context()
    await getattr(router(Controller(RayActorError())), method)(received(request_), context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert "controller gives no answer" in context.details


async def test_a_watch_outlives_a_controller_that_is_away() -> None:
    controller = Controller(RayActorError())
    made = router(controller)
    watch = made.Watch(received(health_pb2.HealthCheckRequest(service="docs")), Context())
    assert (await anext(watch)).status == Health.UNKNOWN
    controller.answer = BOTH
    assert (await anext(watch)).status == Health.SERVING
    await watch.aclose()


class Handle:
    """Of an application whose replicas give the same bytes to every call."""

    forward = property(lambda self: self)

    async def remote(self, *_: object) -> tuple[bytes, bytes]:
        return b"answer", b""


class Finder(Controller):
    """Serve's search for an application's handle, while its controller is what it is told to be."""

    def __call__(self, application: str) -> Any:
        super().__call__()
        return Handle()


async def embed(made: Router) -> Context:
    context = Context()
    await made.Embed(received(wire_embedding.EmbedRequest(model=b"docs")), context)
    return context


async def test_calls_that_wait_for_a_handle_take_one_thread() -> None:
    finder = Finder(BOTH)
    made = router(Controller(BOTH), finder)
    async with hanging(finder):
        calls = [asyncio.create_task(embed(made)) for _ in range(200)]
        await until(lambda: finder.num_asked > 0)
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        # What others have to do in threads goes on.
        async with asyncio.timeout(30):
            await asyncio.to_thread(int)
    assert {call.code for call in await asyncio.gather(*calls[1:])} == {None}
    assert finder.num_asked == 1


async def test_a_handle_that_was_not_found_is_looked_for_again() -> None:
    finder = Finder(RayServeException("no controller"))
    made = router(Controller(BOTH), finder)
    refused = await asyncio.gather(*(embed(made) for _ in range(3)))
    assert {call.code for call in refused} == {grpc.StatusCode.UNAVAILABLE}
    assert finder.num_asked == 1
    finder.answer = BOTH
    assert (await embed(made)).code is None
    assert finder.num_asked == 2
