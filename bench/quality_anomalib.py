"""The other side of `bench.quality_anomaly`: anomalib's PatchCore, in an environment of its own.

Reads a job as JSON (see `quality_anomaly.theirs`) and prints the scores of the test photos and the processor seconds.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from PIL import Image
from safetensors.torch import load_file

_BATCH = 16


def batches(paths: Sequence[str], job: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Photos as the backbone takes them, float32 [N, 3, H, W]."""
    mean, std = (torch.tensor(job[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    for start in range(0, len(paths), _BATCH):
        photos = [
            Image.open(path).convert("RGB").resize((job["size"], job["size"]), Image.Resampling.BICUBIC)
            for path in paths[start : start + _BATCH]
        ]
        pixels = torch.from_numpy(np.stack([np.array(photo) for photo in photos])).permute(0, 3, 1, 2)
        yield (pixels.float() / 255 - mean) / std


def main() -> None:
    """Learn, and score."""
    job = json.loads(Path(sys.argv[1]).read_text())
    started = time.process_time()
    layers = [int(np.log2(stride)) - 1 for stride in job["levels"]]
    model = PatchcoreModel(layers=layers, backbone=job["backbone"], pre_trained=False)
    model.feature_extractor.feature_extractor.load_state_dict(load_file(job["weights"]))
    model.train()
    with torch.no_grad():
        for batch in batches(job["train"], job):
            model(batch)
        model.subsample_embedding(job["share"])
        model.eval()
        scores = [score for batch in batches(job["test"], job) for score in model(batch).pred_score.tolist()]
    print(json.dumps({"scores": scores, "cpu": time.process_time() - started}))


if __name__ == "__main__":
    main()
