"""Which document of an order is the newest: what is known, and how much is remembered."""

from __future__ import annotations

from consumer.core.effects import Document
from consumer.core.newest_documents import NewestDocuments
from consumer.core.ownership import Assignment

OURS = Assignment("orders", 0, 1)


def test_an_event_that_comes_for_the_first_time_replaces_whatever_there_is() -> None:
    documents = NewestDocuments()
    lane = (OURS, "default", "A")
    assert documents.how_to_send(lane, 3, is_first=True) == Document()
    documents.taken(lane, 3)
    assert documents.how_to_send(lane, 4, is_first=True) == Document()
    assert documents.how_to_send(lane, 3, is_first=False) == Document()  # the same once more does no harm


def test_an_older_one_is_not_sent_whoever_brings_it() -> None:
    documents = NewestDocuments()
    lane = (OURS, "default", "A")
    documents.taken(lane, 3)
    assert documents.how_to_send(lane, 2, is_first=False) is None
    assert documents.how_to_send(lane, 2, is_first=True) is None
    assert documents.how_to_send((OURS, "other", "A"), 2, is_first=True) == Document()


def test_beyond_its_bound_the_order_that_was_sent_longest_ago_is_unknown() -> None:
    documents = NewestDocuments(max_known=2)
    for order in "ABAC":
        documents.taken((OURS, "default", order), 7)
    assert len(documents) == 2
    assert documents.how_to_send((OURS, "default", "A"), 6, is_first=False) is None
    assert documents.how_to_send((OURS, "default", "B"), 8, is_first=False) == Document(replaces=False)
