import polars as pl
import pytest

from plantml.data.filters import where
from plantml.errors import UsageError

ROWS = pl.DataFrame(
    {
        "name": ["lab/1.jpg", "field/2.jpg", "lab/3.jpg"],
        "disease": ["rust", None, "none"],
        "brightness": [0.1, 0.5, 0.9],
        "meta_camera": ["A", "B", None],
    }
)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ('disease == "rust"', [0]),
        ('disease != "rust"', [1, 2]),
        ("disease == None", [1]),
        ("disease is None", [1]),
        ("disease is not None and brightness > 0.5", [2]),
        ('disease in ["rust", "none"]', [0, 2]),
        ('disease not in ["rust"]', [1, 2]),
        ('"lab/" in name', [0, 2]),
        ('"a.b" in name', []),
        ("not brightness < 0.2", [1, 2]),
        ("0.2 < brightness < 0.6", [1]),
        ('camera == "B" or brightness == 0.9', [1, 2]),
        ("brightness > -1", [0, 1, 2]),
    ],
)
def test_conditions_mean_what_they_mean_in_python(condition, kept):
    found = where(ROWS.with_row_index(), condition)
    assert found["index"].to_list() == kept


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "disease ==",
        "f(1)",
        "disease[0]",
        "nothing == 1",
        "disease == (lambda: 1)",
        "name in disease",
        "1 if 1 else 2",
    ],
)
def test_nothing_else_is_run(condition):
    with pytest.raises(UsageError, match="where"):
        where(ROWS, condition)


def test_kinds_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="does not fit"):
        where(ROWS, "name > 3")
