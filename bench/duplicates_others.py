"""The other tools' sides of near-duplicates. Each runs where plantml need not be installed."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.duplicates_truth import judge, photos
from bench.side import Rounds


def imagededup(rounds: Rounds, *, folder: str) -> None:
    """imagededup's perceptual hash, at its own distance of 10, with all cores."""
    from imagededup.methods import PHash

    paths, method = photos(folder), PHash(verbose=False)
    with TemporaryDirectory(dir=folder) as flat:
        _link(paths, Path(flat))

        def work() -> int:
            hashes = method.encode_images(image_dir=flat)
            found = method.find_duplicates(encoding_map=hashes)
            judge(folder, "imagededup", [(one, other) for one, others in found.items() for other in others])
            return len(paths)

        rounds.run(work)


def cleanvision(rounds: Rounds, *, folder: str) -> None:
    """cleanvision's exact and near duplicates, with all cores and none of its other checks."""
    from cleanvision import Imagelab

    paths = [str(path) for path in photos(folder)]

    def work() -> int:
        lab = Imagelab(filepaths=paths)
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=os.cpu_count(), verbose=False)
        sets = [*lab.info["exact_duplicates"]["sets"], *lab.info["near_duplicates"]["sets"]]
        judge(folder, "cleanvision", [[Path(path).name for path in group] for group in sets])
        return len(paths)

    rounds.run(work)


def _link(paths: list[Path], flat: Path) -> None:
    for path in paths:
        (flat / path.name).symlink_to(path)
