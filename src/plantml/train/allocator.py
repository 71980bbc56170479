"""Memory of freed tensors kept for the next ones, where the C library is glibc."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Tell glibc not to hand large freed blocks back to the system; true if it was told.

    Fresh pages are expensive on virtual machines: training the default backbone on two cores goes from 10
    to 29 photos a second.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL("libc.so.6")
    return bool(libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
