"""`PLANTS_MODEL=… python bench/serve_peers_lit.py PORT`: the network behind LitServe."""

import io
import sys
from typing import Any

from fastapi import Request
from litserve import LitAPI, LitServer
from PIL import Image

from serve_peers import CORES, Network


class Plants(LitAPI):
    """One process for each core."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the name that LitServe passes
        self.network = Network()

    def decode_request(self, request: Request) -> Image.Image:
        return Image.open(io.BytesIO(request["content"].file.read()))

    def predict(self, photo: Image.Image) -> dict[str, Any]:
        return self.network.predict(photo)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = LitServer(Plants(), accelerator="cpu", workers_per_device=CORES, timeout=60)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="error", generate_client_file=False)
