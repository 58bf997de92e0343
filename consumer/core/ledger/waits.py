"""Waits: how long an action waits before its next step, and for how long it may try. Time on hold does not count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from consumer.core.ledger.entries import Entry
from consumer.core.ledger.paused import Paused
from consumer.core.pacing import PollSchedule, spread
from consumer.core.poll_plan import LONGEST_S

TOLD_TRIES = 2  # waits that Engage named, one after the other, before they grow
CONTACT_WAITS_S = (10.0, 30.0, 60.0, 120.0)  # contacts are synchronised apart from orders, mostly within a minute


@dataclass(frozen=True, slots=True)
class Policy:
    """The waits and limits that decide when the ledger tries again and when it gives up. Seconds.

    `deadline_s` counts from when the event was first read, `not_found_grace_s` from the first 404 in a row,
    `contact_grace_s` from the first 422. `processing_s` is the longest time that Engage may still work on an action
    in doubt, or on a document without an answer. If that action becomes a dead letter, the order's next action waits so
    long. So does the document, until it is sent again. `shadow`: this run sends nothing (rule 9).
    """

    schedule: PollSchedule = field(default_factory=PollSchedule)
    deadline_s: float = 24 * 3600.0
    not_found_grace_s: float = 600.0
    contact_grace_s: float = 600.0
    processing_s: float = 30.0
    shadow: bool = False


class Waits:
    """The waits and limits of a policy. Growing waits are spread by `jitter`, which draws from [0, 1)."""

    def __init__(self, policy: Policy, paused: Paused, jitter: Callable[[], float]) -> None:
        """`paused` knows what was on hold, and for how long."""
        self._policy = policy
        self._schedule = policy.schedule
        self._paused = paused
        self._jitter = jitter

    # -- of polls -------------------------------------------------------------------------------------------------

    def first_poll(self, entry: Entry, now: float) -> float:
        """Return when to poll for the first time."""
        plan = entry.queue.plan
        return self._schedule.first_poll(now) if plan is None else max(now, entry.since + plan.next_age(0.0))

    def next_poll(self, entry: Entry, now: float) -> float:
        """Return when to poll again after a poll that found no tag. Notes whether it is a spare one (rule 14)."""
        plan = entry.queue.plan
        if plan is None:
            # A restart begins with the first wait again.
            is_spare = self._schedule.is_spare(entry.attempts) or self.is_old(entry, now)
            at = now + self._schedule.interval(entry.attempts, self._jitter())
        else:
            if entry.asked_at == entry.since < entry.first_seen - plan.next_age(0.0):
                # By its event's time the tag should have been there when the event was read. So that time tells
                # nothing: an old event that was published again, or a time of day that is a date.
                entry.since = entry.first_seen
            entry.asked_at = now
            is_spare = plan.is_spare(now - entry.since)
            at = entry.since + plan.next_age(now - entry.since)
        entry.spare = is_spare and not entry.is_document
        return at

    def is_old(self, entry: Entry, now: float) -> bool:
        """Whether an action waits for longer than there is anything to learn of (poll_plan.py)."""
        return now - entry.first_seen > LONGEST_S

    def learn(self, entry: Entry, now: float) -> None:
        """Note that a poll found a tag, where that tells when Engage has tags."""
        plan = entry.queue.plan
        if plan is None or entry.stale or entry.job_is_gone or self._paused.held_s(entry, entry.since, now):
            return
        plan.found(entry.asked_at - entry.since, now - entry.since)

    def before_check_s(self, entry: Entry) -> float:
        """Return how long to wait before the job of an action that Engage took is polled: once in a while.

        More often where the order's next action waits for it.
        """
        if entry.next is not entry:
            return self._schedule.interval(entry.answered, self._jitter())
        return self.backoff_s(entry.answered + 1)

    def first_check(self, now: float) -> float:
        """Return when to poll such a job where the order's next action has just come."""
        return self._schedule.first_poll(now)

    def after_stale_tag_s(self, entry: Entry) -> float:
        """Return how long to wait before the order is asked for a newer tag. The first time it is asked at once.

        Soon once more, as the order may have changed again. What then is still refused may be a copy that lags behind.
        """
        if entry.stale == 1:
            return 0.0
        return self._schedule.interval(1, self._jitter()) if entry.stale == 2 else self.backoff_s(entry.stale - 2)

    # -- after a failure ------------------------------------------------------------------------------------------

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return self._schedule.backoff(failures, self._jitter())

    def retry_after_or_backoff_s(self, retry_after_s: float | None, failures: int) -> float:
        """Return how long to wait after a failure: as long as Engage said, where it did.

        Where that did not help TOLD_TRIES times, the waits grow all the same: an action that is told to come back in a
        second, for ever, would take its connection's requests from all others.
        """
        if retry_after_s is None:
            return self.backoff_s(failures)
        return retry_after_s if failures <= TOLD_TRIES else max(retry_after_s, self.backoff_s(failures - TOLD_TRIES))

    def in_doubt_s(self, entry: Entry, now: float) -> float:
        """Return how long an action in doubt waits. Each send may cause a duplicate, so its waits keep doubling."""
        sends = entry.failed_sends
        longest = self.backoff_s(sends)
        time_left = entry.first_seen + self._policy.deadline_s - now
        return min(longest * 2.0 ** max(0, sends - len(self._schedule.backoff_s)), max(longest, time_left))

    def without_contact_s(self, entry: Entry) -> float:
        """Return how long to wait for the contact of an order that has none."""
        wait_s = CONTACT_WAITS_S[min(entry.failed_sends, len(CONTACT_WAITS_S)) - 1]
        return spread(wait_s, self._jitter())

    # -- for how long it may try ----------------------------------------------------------------------------------

    def overran(self, entry: Entry, now: float) -> bool:
        """Whether an action's deadline has passed."""
        deadline_s = self._policy.deadline_s
        return now - entry.first_seen > deadline_s and self._paused.elapsed_s(entry, entry.first_seen, now) > deadline_s

    def is_missing_too_long(self, entry: Entry, now: float) -> bool:
        """Whether Engage has not known it for longer than it may."""
        grace_s, since = self._policy.not_found_grace_s, entry.missing_since
        return since is not None and self._paused.elapsed_s(entry, since, now) >= grace_s

    def contact_until(self, entry: Entry, now: float) -> float:
        """Return until when an action's order may have no contact. That begins when it is first asked."""
        grace_s = self._policy.contact_grace_s
        if entry.contact_due is None:
            entry.contact_due = now + grace_s
        return entry.contact_due + self._paused.held_s(entry, entry.contact_due - grace_s, now)
