"""For a subprocess of a test: kill work at each of its writes to a disk."""

import itertools
import os
import signal


def kill_at_every_write(work, check, folder):
    """Run `work(url)` in forks, each with a new `url` in `folder` and killed one write later than the one before.

    `check(url)` looks at what is left. Returns the number of forks; the last one was not killed.
    """
    for at in itertools.count(1):
        url = f"{folder}/{at}"
        child = os.fork()
        if not child:
            calls = itertools.count(1)
            for name in ("write", "fsync", "link", "replace", "unlink"):
                setattr(os, name, _fatal(getattr(os, name), calls, at))
            work(url)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(url)
        if not os.WIFSIGNALED(status):
            return at
    return 0


def _fatal(call, calls, at):
    def wrapped(*arguments, **more):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **more)

    return wrapped
