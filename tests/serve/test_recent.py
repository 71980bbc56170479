"""What was used last stays."""

from plantml.serve.recent import Recent


def test_what_was_used_longest_ago_goes():
    kept = Recent(2)
    kept["a"], kept["b"] = 1, 2
    assert kept.use("a") == 1
    kept["c"] = 3
    assert list(kept) == ["a", "c"]
    assert kept.use("b") is None
    kept["a"] = 4
    assert dict(kept) == {"c": 3, "a": 4}
    assert list(kept) == ["c", "a"]
