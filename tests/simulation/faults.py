"""What goes wrong in a schedule: with processes, with the group, with the topics, with the clocks.

Each fault is a function that tells whether it could happen. `FAULTS` says how often each is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from consumer.core.ownership import Assignment, Partition
from tests.simulation.kafka_model import TRANSACTION_TIMEOUT_S
from tests.simulation.process import TOPICS, Instance

if TYPE_CHECKING:
    from tests.simulation.scheduler import World

FAIL_POINTS = (
    "init", "flush", "between two records", "offsets", "commit", "after commit", "committed", "watermarks", "reading",
)  # fmt: skip
IN_A_TRANSACTION = ("between two records", "offsets")  # written, and the offsets not sent yet
HOUR_S = 3600
MOST_PARTITIONS = 4


def _running(world: World) -> Instance | None:
    instance = world.instances[world.pick(world.names)]
    return None if instance is None or instance.frozen else instance


def crash(world: World) -> bool:
    instance = world.instances[world.pick(world.names)]
    if instance is None:
        return False
    world.crash(instance, back_after_s=world.pick((0.1, 5.0, 60.0)) if world.chance(0.7) else None)
    return True


def freeze(world: World) -> bool:
    return _frozen(world, world.pick((0.5, 6.0, 20.0)))


def freeze_for_long(world: World) -> bool:
    return _frozen(world, 100.0)


def _frozen(world: World, seconds: float) -> bool:
    instance = _running(world)
    if instance is not None:
        world.freeze(instance, seconds)
    return instance is not None


def crash_there(world: World) -> bool:
    world.fail_points[world.pick(world.names)] = ("crash", world.pick(FAIL_POINTS))
    return True


def freeze_there(world: World) -> bool:
    world.fail_points[world.pick(world.names)] = ("freeze", world.pick(FAIL_POINTS))
    return True


def rebalance_there(world: World) -> bool:
    world.fail_points[world.pick(world.names)] = ("rebalance", world.pick(FAIL_POINTS))
    return len(world.names) > 1


def hand_over_twice(world: World) -> bool:
    """An instance stands still in a transaction; whoever takes its partitions over loses them before that times out."""
    world.fail_points[world.pick(world.names)] = ("hand over twice", world.pick(IN_A_TRANSACTION))
    return len(world.names) > 1 and world.kafka.session_s < TRANSACTION_TIMEOUT_S


def strike_there(world: World, instance: Instance) -> None:
    """A process has come to its fail point."""
    kind, where = world.fail_points.pop(instance.name)
    world.reach(f"{kind} there: {where}")
    match kind:
        case "crash":
            world.crash(instance, back_after_s=world.pick((0.1, 5.0, 60.0)))
        case "freeze":
            world.freeze(instance, world.pick((0.5, 5.0, 12.0, 100.0)))
        case "hand over twice":
            world.freeze(instance, world.pick((12.0, 100.0)))
            owned = list(instance.source.ownership.owned)
            world.at(
                world.now + world.kafka.session_s + world.pick((0.5, 1.0, 3.0)), partial(_crash_heirs, world, owned)
            )
        case "rebalance":
            world.kafka.restless = True
            world.rebalance(shuffled=True)


def _crash_heirs(world: World, owned: list[Partition]) -> None:
    for instance in list(world.instances.values()):
        if instance is not None and any(world.account.is_owner(instance, at) for at in owned):
            world.crash(instance, back_after_s=world.pick((0.1, 5.0)))


def cut(world: World) -> bool:
    instance = world.instances[world.pick(world.names)]
    if instance is None:
        return False
    world.say(f"{instance.id} is cut off from Kafka")
    instance.cut = True
    world.kafka.listen(instance)
    world.at(world.now + world.pick((5.0, 100.0)), partial(world.mend, instance))
    world.at(world.now + world.kafka.session_s)
    return True


def stop(world: World) -> bool:
    instance = _running(world)
    if instance is not None:
        world.say(f"{instance.id} is asked to stop")
        instance.terminate()
    return instance is not None


def start(world: World) -> bool:
    world.start_again(world.pick(world.names))
    return True


def reshuffle(world: World) -> bool:
    world.kafka.restless = True
    return True


def forget_marks(world: World) -> bool:
    _forget(world, TOPICS.delay)
    return True


def forget_offsets(world: World) -> bool:
    recorded = all(world.account.recorded_position(n) == position for n, position in world.account.positions.items())
    if world.kafka.members or not recorded:
        return False  # what an operator has decided is recorded with the next transaction
    _forget(world, TOPICS.source)
    return True


def _forget(world: World, topic: str) -> None:
    for at in [at for at in world.kafka.committed if at[0] == topic and not world.kafka.undecided([at])]:
        del world.kafka.committed[at]


def compact(world: World) -> bool:
    delay = [log for (topic, _), log in world.kafka.logs.items() if topic == TOPICS.delay]
    if sum(log.compact(world.now) for log in delay):
        world.reach("compacted")
    return True


def delete_records(world: World) -> bool:
    log = world.kafka.logs[TOPICS.source, world.pick(world.numbers)]
    if not world.chance(0.3) or log.end == log.start or not world.account.is_known(log.partition):
        return False
    log.delete_before(world.draw.randint(log.start + 1, log.end))
    world.kafka.version += 1
    world.say(f"retention: {log.topic}[{log.partition}] starts at {log.start}")
    if log.start > world.account.position(log.partition):
        world.reach("records were deleted unread")
    return True


# -- topics that change while the relays run


def grow(world: World) -> bool:
    """The source gets a partition. The group, the instances and the operator of the delay topic hear of it later."""
    if len(world.numbers) >= MOST_PARTITIONS or world.growing:
        return False
    world.growing = True
    number = world.add_source_partition()
    world.say(f"{TOPICS.source} has {number + 1} partitions")
    world.at(world.now + world.pick((0.1, 2.0)), world.let_the_group_hear)
    world.at(world.now + world.pick((0.0, 5.0, 60.0)), world.grow_relay_topics)
    for instance in world.instances.values():
        if instance is not None:
            world.at(world.now + world.pick((0.1, 5.0)), partial(_counted, world, instance))
    return True


def _counted(world: World, instance: Instance) -> None:
    """librdkafka's statistics tell."""
    if not instance.responsive:
        if instance.alive:
            world.at(world.now + 5.0, partial(_counted, world, instance))
    elif instance.source.started:
        world.reach("an instance heard that the source has grown")
        instance.source.counted(len(world.numbers))
    else:
        world.at(world.now + 0.1, partial(_counted, world, instance))


def make_anew(world: World) -> bool:
    """The delay topic is deleted and made again: all that is pending is in the instances' memory now, or nowhere."""
    kafka = world.kafka
    if world.growing or not all(_is_known_elsewhere(world, number) for number in world.numbers):
        return False  # with positions, too, gone: an operator who starts anew, with `run --from`
    for number in world.numbers:
        world.account.bereave(number, _holder(world, number))
    kafka.settle_gone(kafka.make_anew(TOPICS.delay))
    if world.chance(0.5):  # the group's coordinator has heard of it
        _forget(world, TOPICS.delay)
    world.say(f"{TOPICS.delay} was deleted and made again")
    return True


def _is_known_elsewhere(world: World, number: int) -> bool:
    committed = world.kafka.committed.get((TOPICS.source, number))
    if committed is None:
        return not world.delay_log(number).latest
    return committed[0] == world.account.position(number)


def _holder(world: World, number: int) -> tuple[Instance, Assignment] | None:
    """Who owns this partition and has its actions in memory."""
    at = (TOPICS.source, number)
    for instance in world.instances.values():
        if instance is not None and (epoch := instance.source.ownership.owned.get(at)) is not None:
            assignment = Assignment(*at, epoch)
            if world.account.is_owner(instance, at) and instance.relay._ledger.open_of(assignment) is not None:
                return instance, assignment
    return None


def jump(world: World) -> bool:
    """A machine's wall clock is set an hour forward or back. Its processes do not notice; those after them do."""
    if not world.profile.skew_s:
        return False
    name = world.pick(world.names)
    world.wall_offset[name] += world.pick((-HOUR_S, HOUR_S))
    instance = world.instances[name]
    if instance is not None and world.chance(0.6):
        world.crash(instance, back_after_s=5.0)
    return True


Fault = Callable[["World"], bool]
FAULTS: dict[str, tuple[int, Fault]] = {
    "crash": (2, crash),
    "crash there": (2, crash_there),
    "freeze": (1, freeze),
    "freeze there": (2, freeze_there),
    "rebalance there": (1, rebalance_there),
    "hand over twice": (1, hand_over_twice),
    "long freeze": (1, freeze_for_long),
    "cut": (1, cut),
    "stop": (1, stop),
    "start": (1, start),
    "reshuffle": (1, reshuffle),
    "forget marks": (1, forget_marks),
    "forget offsets": (1, forget_offsets),
    "compact": (1, compact),
    "delete records": (1, delete_records),
    "more partitions": (1, grow),
    "delay topic made anew": (1, make_anew),
    "clock jump": (1, jump),
}
_DRAWN = [name for name, (weight, _) in FAULTS.items() for _ in range(weight)]


def strike(world: World) -> None:
    """Let one of them happen."""
    name = world.pick(_DRAWN)
    _, fault = FAULTS[name]
    if fault(world):
        world.reach(f"fault: {name}")
        world.account.balance(world.numbers)
