"""How often a sign-in may fail.

Counted in the memory of each server: a guess that is refused costs the database nothing, and `n` servers only allow
`n` times as many.
"""

import ipaddress
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from plantml.serve.web.problems import RequestError

PER_NAME, PER_ADDRESS = RateLimitItemPerMinute(10, 5), RateLimitItemPerMinute(50, 5)
"""Failures in 5 minutes: of one name, and from one address, behind which may be many people."""


class Throttle:
    """Counts failed sign-ins by name and by address."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, name: str, address: str) -> None:
        """Raise `RequestError` 429 after too many failures."""
        full = [each for each in _counted(name, address) if not self._limiter.test(*each)]
        if full:
            reset = max(self._limiter.get_window_stats(*each).reset_time for each in full)
            seconds = max(1, math.ceil(reset - time.time()))
            raise RequestError(
                429,
                "Too many failed sign-ins",
                "the name or the address has to wait",
                f"Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )

    def count(self, name: str, address: str) -> None:
        """Count a failure."""
        for each in _counted(name, address):
            self._limiter.hit(*each)

    def forget(self, name: str) -> None:
        """Forget the failures of a name that has signed in."""
        self._limiter.clear(PER_NAME, "name", name)


def _counted(name: str, address: str) -> tuple[tuple[RateLimitItem, str, str], ...]:
    return (PER_NAME, "name", name), (PER_ADDRESS, "address", _network(address))


def _network(address: str) -> str:
    """An IPv6 address stands for its /64, which one household has; others stand for themselves."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
