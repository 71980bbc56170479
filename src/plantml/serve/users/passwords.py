"""Passwords: what is acceptable, and their Argon2 hashes. One hash takes 64 MiB and some tenths of a second."""

import functools

from pwdlib import PasswordHash

from plantml.errors import InputError

SHORTEST, LONGEST = 12, 1024
_hasher = PasswordHash.recommended()


def hashed(password: str) -> str:
    """The hash of a new password; "" for none, which no password fits.

    Raises:
        InputError: it is too short or too long.
    """
    if not password:
        return ""
    if not SHORTEST <= len(password) <= LONGEST:
        size = "short" if len(password) < SHORTEST else "long"
        raise InputError(
            f"The password is too {size}", f"it needs {SHORTEST} to {LONGEST} characters", "Choose another one."
        )
    return _hasher.hash(password)


def fits(password: str, kept: str) -> bool:
    """True if a password is that of a hash. Takes as long without a hash, so that the time does not tell."""
    is_right = _hasher.verify(password[:LONGEST], kept or _nobodys())
    return is_right and bool(kept) and len(password) <= LONGEST


@functools.cache
def _nobodys() -> str:
    return _hasher.hash("the password of nobody")
