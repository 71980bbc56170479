"""Keep the memory of freed tensors for the next ones, where the C library is glibc."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Stop glibc from returning large freed blocks to the system; true on success.

    Fresh pages are expensive on virtual machines. This takes training of the default backbone on two cores
    from 10 to 29 photos per second.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
