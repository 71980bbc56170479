import io
import random

import polars as pl

from plantml.storage import sealed_tables

ROWS = pl.DataFrame(
    {"name": ["a", "b"], "numbers": [[1.0], []]}, schema={"name": pl.String, "numbers": pl.List(pl.Float32)}
)


def test_rows_come_back_and_no_others():
    data = sealed_tables.pack(ROWS)
    assert sealed_tables.unpack(data, ROWS.schema).equals(ROWS)
    assert sealed_tables.unpack(data, pl.Schema({"name": pl.String})) is None


def test_what_is_not_what_was_written_is_not_read():
    data, chance = sealed_tables.pack(ROWS), random.Random(0)
    plain = io.BytesIO()
    ROWS.write_parquet(plain)
    others = [b"", b"garbage", data[:-9], data + b"x", plain.getvalue()]
    for _ in range(300):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        others.append(bytes(changed))
    assert all(sealed_tables.unpack(other, ROWS.schema) is None for other in others)
