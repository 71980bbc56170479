"""Failed sign-ins: counted by name and by address."""

import time

import pytest

from plantml.serve.users.throttle import PER_ADDRESS, PER_NAME, Throttle
from plantml.serve.web.problems import RequestError


def failing(throttle, name, address, times):
    for _ in range(times):
        throttle.count(name, address)


def wait(throttle, name, address) -> int:
    with pytest.raises(RequestError) as error:
        throttle.check(name, address)
    assert error.value.status == 429
    return int(error.value.headers["Retry-After"])


def test_a_name_waits_wherever_the_guesses_come_from() -> None:
    throttle = Throttle()
    for number in range(PER_NAME.amount):
        throttle.check("ada", "192.0.2.99")
        throttle.count("ada", f"192.0.2.{number}")
    assert 0 < wait(throttle, "ada", "192.0.2.99") <= PER_NAME.get_expiry() + 1
    throttle.check("bob", "192.0.2.1")
    throttle.forget("ada")
    throttle.check("ada", "192.0.2.99")


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [("192.0.2.1", "192.0.2.1", "192.0.2.2"), ("2001:db8:1:2::1", "2001:db8:1:2:ff::9", "2001:db8:1:3::1")],
)
def test_an_address_waits_whatever_the_names(one, same, other) -> None:
    throttle = Throttle()
    for number in range(PER_ADDRESS.amount):
        throttle.count(f"user-{number}", one)
    wait(throttle, "ada", same)
    throttle.check("ada", other)


def test_it_ends_by_itself(monkeypatch) -> None:
    throttle = Throttle()
    failing(throttle, "ada", "192.0.2.1", PER_NAME.amount)
    later = time.time() + wait(throttle, "ada", "192.0.2.1")
    monkeypatch.setattr(time, "time", lambda: later)
    throttle.check("ada", "192.0.2.1")
