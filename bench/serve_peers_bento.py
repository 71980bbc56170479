"""The network behind BentoML, which starts this service by its name."""

from typing import Any

import bentoml
from PIL import Image

from serve_peers import CORES, Network


@bentoml.service(workers=CORES, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Plants:
    """One process for each core."""

    def __init__(self) -> None:
        self.network = Network()

    @bentoml.api(route="/predict")
    def predict(self, content: Image.Image) -> dict[str, Any]:
        """Scores by target."""
        return self.network.predict(content)
