"""Heat maps drawn onto photos."""

import numpy as np
from PIL import Image

from plantml.imaging.heat import draw_heat

GREY = Image.new("RGB", (80, 40), (120, 120, 120))


def test_only_what_is_anomalous_is_coloured_where_it_is():
    cells = np.zeros((4, 8), np.float32)
    cells[1, 6] = 1.0
    drawn = np.asarray(draw_heat(GREY, cells, (0, 0, 80, 40)), int)
    changed = (drawn != 120).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 5 <= rows.min() < 12 < 18 < rows.max() <= 25
    assert 55 <= columns.min() < 62 < 68 < columns.max() <= 75
    assert drawn[15, 65, 0] > drawn[15, 65, 1] + 60  # red


def test_a_map_of_a_padded_input_reaches_beyond_the_photo():
    """A wide photo in a square input: the upper and lower rows of cells lie in the padding."""
    cells = np.zeros((8, 8), np.float32)
    cells[:2] = cells[6:] = 1.0
    drawn = np.asarray(draw_heat(GREY, cells, (0, -20, 80, 80)), int)
    assert (drawn[8:32] == 120).all()
