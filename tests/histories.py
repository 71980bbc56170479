"""Histories that nobody wrote: events with any content, in which a fold must find damage and not fail."""

from hypothesis import strategies as st

from plantml.storage.event_log import Event


def histories(keys, words):
    """Up to three events with some of these keys, whose values are these words, or of any other kind."""
    values = st.sampled_from(words) | st.none() | st.integers(0, 2) | st.floats() | st.just({}) | st.just([])
    contents = st.lists(st.dictionaries(st.sampled_from(keys), values), max_size=3)
    return contents.map(
        lambda content: [Event(number, "2026-01-01T00:00:00Z", one) for number, one in enumerate(content, start=1)]
    )
