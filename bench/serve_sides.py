"""The side of the server: a process that starts it, and asks it for a prediction of each photo."""

from bench.serving import ask_all, bodies, family, peer, serving
from bench.side import Rounds


def load(rounds: Rounds, *, folder: str, model: str, scratch: str, clients: int) -> None:
    """`plantml serve` under the load of so many clients on this machine, whose computing is reported apart.

    Args:
        rounds: the conversation.
        folder: of photos.
        model: a bundle.
        scratch: local folder for registry and state.
        clients: that each send one photo at a time.
    """
    requests = bodies(folder)
    with serving(model, scratch) as server:
        rounds.helpers, rounds.only_helpers = family(server.process), True
        rounds.run(lambda: ask_all(server, requests, clients))


def load_peer(
    rounds: Rounds, *, name: str, interpreter: str, folder: str, model: str, scratch: str, clients: int
) -> None:
    """LitServe or BentoML under the same load.

    Args:
        rounds: the conversation.
        name: `litserve` or `bentoml`.
        interpreter: the Python of its environment.
        folder: of photos.
        model: a bundle.
        scratch: local folder.
        clients: that each send one photo at a time.
    """
    requests = bodies(folder, "content")
    with peer(name, interpreter, model, scratch) as server:
        rounds.helpers, rounds.only_helpers = family(server.process), True
        rounds.run(lambda: ask_all(server, requests, clients))
