from types import SimpleNamespace

import numpy as np

from plantml.export import latency


def test_rounds_are_for_comparing(monkeypatch):
    monkeypatch.setattr(latency, "_SECONDS", 0.0)
    pixels = np.zeros((2, 4, 4, 3), np.uint8)

    def calls(count):
        batches = []
        sides = {str(number): SimpleNamespace(run=batches.append) for number in range(count)}
        speeds = latency.measure(sides, pixels, threads=1)
        assert [set(speed) for speed in speeds.values()] == [set(latency.BATCHES)] * count
        return len(batches) / count

    assert calls(1) < calls(2) == calls(3)
