"""The network of a bundle, without plantml, for servers that others wrote: LitServe and BentoML.

Each runs in an environment of its own, as its documentation shows, with one process for each core:

    PLANTS_MODEL=model.onnx python bench/serve_peers_lit.py PORT
    PLANTS_MODEL=model.onnx bentoml serve serve_peers_bento:Plants --working-dir bench --port PORT

Both answer POST /predict with a photo as the file `content`.
"""

import os
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

CORES = len(os.sched_getaffinity(0))


class Network:
    """One session of one thread; decoding and resizing are those of plantml: small, upright, then bicubic."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = os.environ["PLANTS_MODEL"]
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._size = self._session.get_inputs()[0].shape[1]
        self._names = [output.name for output in self._session.get_outputs() if output.name.startswith("target.")]

    def predict(self, photo: Image.Image) -> dict[str, Any]:
        """Scores by target."""
        photo.draft("RGB", (2 * self._size, 2 * self._size))
        upright = ImageOps.exif_transpose(photo).convert("RGB")
        pixels = np.asarray(upright.resize((self._size, self._size), Image.Resampling.BICUBIC))[None]
        outputs = self._session.run(self._names, {"image": pixels})
        return {name: scores[0].tolist() for name, scores in zip(self._names, outputs, strict=True)}
