"""The side of Ultralytics' classifier; it runs in an environment that has that package."""

from ultralytics import YOLO

from bench.side import Rounds

_BATCH, _SIDE = 32, 224


def classify(rounds: Rounds, *, folder: str) -> None:
    """All photos of the folder through a classifier with random weights, as its documentation shows."""
    model = YOLO("yolo11n-cls.yaml", task="classify")

    def work() -> int:
        answers = model.predict(folder, imgsz=_SIDE, batch=_BATCH, device="cpu", stream=True, verbose=False, save=False)
        return sum(1 for _ in answers)

    rounds.run(work)
