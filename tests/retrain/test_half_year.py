"""Half a year of the loop on drawn photos: twelve feeds, a new disease, a feed with wrong labels, a quiet month.

The story in docs/retraining.md is the output of this test: PLANTML_STORY=FILE writes it down.
"""

import csv
import os
from pathlib import Path

import polars as pl
import pytest

from plantml import synth
from plantml.data import versions

# Each disease on a crop of its own, so that a small network learns it in seconds.
KNOWN = ("tomato___healthy", "bean___rust", "maize___blight")
NEW = "strawberry___powdery_mildew"
FEEDS = 12
STORY = os.environ.get("PLANTML_STORY")  # before the tests take such variables away
TRAIN = {"preset": "quick", "size": 64, "targets": ["disease"], "device": "cpu"}


class Year:
    """Feeds that grow by the month."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.rows: dict[int, list[dict[str, str]]] = {feed: [] for feed in range(1, FEEDS + 1)}

    def deliver(self, month: int, feed: int, count: int, classes, wrong=None, share=0.0) -> int:
        """New photos of a feed; with `wrong`, so large a share is labelled as another disease. Returns how many."""
        folder = self.home / f"feed-{feed:02d}"
        spec = synth.SynthSpec(images=count, classes=classes, seed=100 * month + feed, size=96)
        synth.write(spec, str(folder / f"month-{month}"), workers=2)
        mistakes = 0
        with (folder / f"month-{month}" / "labels.csv").open() as file:
            for row in csv.DictReader(file):
                swapped = (wrong or {}).get(row["disease"]) if mistakes < share * count else None
                mistakes += swapped is not None
                disease = swapped or row["disease"]
                self.rows[feed].append(
                    {
                        "image": f"month-{month}/{row['image']}",
                        "disease": disease,
                        "plant": f"{feed}-{month}-{row['plant']}",
                    }
                )
        with (folder / "list.csv").open("w") as file:
            writer = csv.DictWriter(file, ["image", "disease", "plant"])
            writer.writeheader()
            writer.writerows(self.rows[feed])
        return mistakes

    def feeds(self):
        """As the loop's configuration names them; two of them may bring new classes."""
        return [
            (str(self.home / f"feed-{feed:02d}" / "list.csv"), {"new_classes": feed in {1, 7, 8}})
            for feed in range(1, FEEDS + 1)
        ]


@pytest.mark.slow
def test_half_a_year(loop, tmp_path) -> None:
    year, story = Year(tmp_path / "feeds"), []
    gates = {"min": ["disease.macro_f1=0.6"], "max_drop": 0.12}
    loop.write(year.feeds(), train=TRAIN, gates=gates, ratios="0.5/0.2/0.3", recent=0.15)

    def month(number: int):
        result = loop.cli("retrain", loop.file)
        assert result.code == 0, result.err
        story.append(f"# month {number}\n{result.out.replace(str(tmp_path), '…')}")
        if STORY:
            Path(STORY).write_text("\n".join(story))
        return result.out

    for number in (1, 2, 3):
        for feed in range(1, FEEDS + 1):
            year.deliver(number, feed, 21 if number == 1 else 6, KNOWN)
        assert "promoted" in month(number) or number > 1
    before = loop.aliases()["production"]

    # Month 4: a new disease, in two feeds.
    for feed in range(1, FEEDS + 1):
        year.deliver(4, feed, 60 if feed in {7, 8} else 6, (*KNOWN, NEW) if feed in {7, 8} else KNOWN)
    assert "promoted" in month(4)
    learnt = loop.report(4)["steps"]["compare"]
    (mildew,) = [duel for duel in learnt["recent"]["classes"] if duel["class"] == "powdery_mildew"]
    assert mildew["wins"] > 0
    assert mildew["losses"] == 0
    in_service = loop.aliases()["production"]
    assert in_service > before

    # Month 5: a large feed in which a fifth of the photos has a wrong label: most of its rust is called blight.
    assert year.deliver(5, 9, 1000, (*KNOWN, NEW), {"rust": "blight"}, share=0.2) == 200
    assert "refused" in month(5)
    assert loop.aliases()["production"] == in_service

    # Month 6: nothing is new.
    assert "nothing to do" in month(6)
    assert loop.aliases()["production"] == in_service
    rows = versions.load(loop.place("data")).rows
    assert rows.filter(pl.col("split") == "test")["image_id"].n_unique() > 0
    assert rows.height == sum(len(rows) for rows in year.rows.values())
