"""What it is to do a part of a job."""

import socket
from collections.abc import Callable, Mapping

from plantml.concurrency import Stop
from plantml.engines.jobs import Part
from plantml.errors import InputError

Count = Callable[[int], None]
"""Called with the number of photos of a part that are done."""

Work = Callable[[Part, Stop, Count], None]
"""Does a part, until a stop, and writes what it finished."""


def check_model(ref: str, here: Mapping[str, object], planned: Mapping[str, object]) -> None:
    """Compare what decides the results of a model with what the job was planned with.

    Raises:
        InputError: something differs; it is named.
    """
    differing = [
        f"{key} is {str(here.get(key))[:12]} there, and was {str(planned.get(key))[:12]} when the command started"
        for key in sorted({*here, *planned})
        if here.get(key) != planned.get(key)
    ]
    if differing:
        raise InputError(
            f"{socket.gethostname()} has another model than the one that was opened here",
            f"{ref}: {'; '.join(differing)}",
            "Name a model that every machine sees and that does not change: --model REGISTRY/NAME@NUMBER",
        )
