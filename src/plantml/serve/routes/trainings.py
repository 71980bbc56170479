"""`/v1/trainings`: ask for trainings, and follow them."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from plantml.errors import PlantmlError
from plantml.serve import trainings
from plantml.serve.access import Trainer
from plantml.serve.service import Service, ServiceDep
from plantml.serve.trainings import Training, TrainingRequest
from plantml.serve.web.json_bodies import JsonRoute
from plantml.serve.web.problems import responses
from plantml.serve.work import jobs

router = APIRouter(prefix="/v1/trainings", tags=["trainings"], route_class=JsonRoute)
Number = Annotated[int, Path(ge=1, le=10**9, description="Number of the training.", examples=[12])]
LineId = Annotated[str | None, Header(max_length=32, description="Continue after this event.", examples=["3.14"])]

_POLL, _HEARTBEAT, _LINES = 1.0, 15.0, 500
"""Seconds between two looks at a log, and between two signs of life; lines that are sent at a time."""

_readers = threading.Semaphore(64)
"""Logs that are followed at a time: each is looked at every second."""

_LONGEST = 600.0
"""Seconds after which a reader has to come back, which browsers do: whether they still may is judged anew."""

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `line` with a time and a text, then one event `end` with the status.",
        "content": {
            "text/event-stream": {
                # Before OpenAPI 3.2, the schema of a stream of events is that of one event.
                "schema": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
                },
                "example": 'id: 3.14\nevent: line\ndata: {"time": "2026-06-01T12:00:00Z", "text": "epoch 3/20"}\n\n',
            }
        },
    }
}


@router.post("", summary="Start a training.", status_code=202, responses=responses(400, 401, 403, 404, 413, 422, 503))
def submit_training(service: ServiceDep, caller: Trainer, body: TrainingRequest) -> Training:
    """A worker splits the dataset if needed, trains, validates on the test split, and adds a challenger.

    Repeating a request is safe: while the same training waits or runs, that one is returned.
    """
    return trainings.submit(service, caller, body)


@router.get("", summary="List the trainings.", responses=responses(401, 403, 422, 503))
def list_trainings(
    service: ServiceDep, caller: Trainer, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> list[Training]:
    """Newest first."""
    return [trainings.view(service, job, caller) for job in islice(reversed(service.jobs.list()), limit)]


@router.get("/{number}", summary="Show a training and its progress.", responses=responses(401, 403, 404, 422, 503))
def show_training(service: ServiceDep, caller: Trainer, number: Number) -> Training:
    """Status, progress, result or failure."""
    return trainings.view(service, service.jobs.get(number), caller)


@router.post("/{number}/cancel", summary="Cancel a training.", responses=responses(401, 403, 404, 422, 503))
def cancel_training(service: ServiceDep, caller: Trainer, number: Number) -> Training:
    """Its worker stops within seconds. A training that has ended stays as it is."""
    return trainings.cancel(service, caller, number)


@router.get(
    "/{number}/log",
    summary="Follow the log of a training.",
    response_class=StreamingResponse,
    responses={**responses(401, 403, 404, 422, 503), **_EVENTS},
)
def follow_training_log(
    service: ServiceDep, caller: Trainer, number: Number, last_event_id: LineId = None
) -> StreamingResponse:
    """Server-sent events, from the beginning or after `Last-Event-ID`. Needs the roles of all targets."""
    job = service.jobs.get(number)
    trainings.check_log(service, caller, job)
    after = last_event_id or ""
    jobs.check_line_id(after)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_turn(service, number, after), media_type="text/event-stream", headers=headers)


async def _turn(service: Service, number: int, after: str) -> AsyncIterator[str]:
    """The events of a log, unless too many are followed: then the reader comes back later."""
    if not _readers.acquire(blocking=False):
        yield "retry: 30000\n\n"
        return
    try:
        async for event in _events(service, number, after):
            yield event
    finally:
        _readers.release()


async def _events(service: Service, number: int, after: str) -> AsyncIterator[str]:
    """The events of a log; a reader that is cut off continues after the last one it has."""
    began = spoke = time.monotonic()
    yield "retry: 2000\n\n"
    while not service.stopping.is_set() and time.monotonic() - began < _LONGEST:
        try:
            job = await run_in_threadpool(service.jobs.get, number)  # before its last lines are read
            lines = await run_in_threadpool(_lines, job.log, after)
        except PlantmlError:
            return  # the reader comes back, and the storage may have, too
        for line in lines:
            after = line.id
            content = json.dumps({"time": line.time, "text": line.text}, ensure_ascii=False)
            yield f"id: {line.id}\nevent: line\ndata: {content}\n\n"
        if not lines and not job.open:
            yield f"event: end\ndata: {json.dumps({'status': job.status})}\n\n"
            return
        if lines or time.monotonic() - spoke > _HEARTBEAT:
            yield ": still here\n\n"
            spoke = time.monotonic()
        if len(lines) < _LINES:
            await asyncio.sleep(_POLL)


def _lines(log: str, after: str) -> list[jobs.Line]:
    return list(islice(jobs.read_log(log, after), _LINES))
