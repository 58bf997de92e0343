"""What is to be said of a group that lets nobody in. Pure.

Brokers that do not know the newer protocol (before Kafka 4.0, or where `group.coordinator.rebalance.protocols` leaves
it out) answer its heartbeat by nothing that librdkafka tells: the consumer waits for ever.
"""

from __future__ import annotations

from consumer.kafka import clients

PATIENCE_S = 60.0  # a rebalance waits for a member that is dead: session.timeout.ms, 45 s


def why_not_joined(properties: clients.Properties, waited_s: float, refused_by: str | None = None) -> str | None:
    """Return what to say of a consumer that has waited so long for its first generation; None: nothing yet.

    `refused_by`: what the group's coordinator answered last: it is full, or another member has another assignor.
    """
    if refused_by is not None:
        return f"group {properties['group.id']} does not let this instance in: {refused_by}"
    if waited_s < PATIENCE_S:
        return None
    why = f"group {properties['group.id']} has not let this instance in for more than {PATIENCE_S:.0f} s"
    if properties.get("group.protocol") == "consumer":
        why += "; brokers before Kafka 4.0 do not know `group.protocol: consumer`, and others may leave it out"
    return why
