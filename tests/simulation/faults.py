"""What goes wrong in a schedule: with processes, with the group, with the topics, with the clocks.

Each fault is a function that tells whether it could happen. `FAULTS` says how often each is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, get_args

from consumer.core.ownership import Assignment, Partition
from tests.simulation import workload
from tests.simulation.kafka_model import TRANSACTION_TIMEOUT_S, Refusal
from tests.simulation.process import CONTROL, TOPICS, Process

if TYPE_CHECKING:
    from tests.simulation.scheduler import Scheduler

FAIL_POINTS = (
    "init", "flush", "between two records", "offsets", "commit", "after commit", "committed", "watermarks", "reading",
)  # fmt: skip
IN_A_TRANSACTION = ("between two records", "offsets")  # written, and the offsets not sent yet
HOUR_S = 3600
MAX_PARTITIONS = 4
MAX_PAUSES = 3


def _running(scheduler: Scheduler) -> Process | None:
    process = scheduler.processes[scheduler.pick(scheduler.names)]
    return None if process is None or process.frozen else process


def crash(scheduler: Scheduler) -> bool:
    process = scheduler.processes[scheduler.pick(scheduler.names)]
    if process is None:
        return False
    scheduler.crash(process, back_after_s=scheduler.pick((0.1, 5.0, 60.0)) if scheduler.chance(0.7) else None)
    return True


def freeze(scheduler: Scheduler) -> bool:
    return _frozen(scheduler, scheduler.pick((0.5, 6.0, 20.0)))


def freeze_for_long(scheduler: Scheduler) -> bool:
    return _frozen(scheduler, 100.0)


def _frozen(scheduler: Scheduler, seconds: float) -> bool:
    process = _running(scheduler)
    if process is not None:
        scheduler.freeze(process, seconds)
    return process is not None


def crash_there(scheduler: Scheduler) -> bool:
    scheduler.fail_points[scheduler.pick(scheduler.names)] = ("crash", scheduler.pick(FAIL_POINTS))
    return True


def freeze_there(scheduler: Scheduler) -> bool:
    scheduler.fail_points[scheduler.pick(scheduler.names)] = ("freeze", scheduler.pick(FAIL_POINTS))
    return True


def rebalance_there(scheduler: Scheduler) -> bool:
    scheduler.fail_points[scheduler.pick(scheduler.names)] = ("rebalance", scheduler.pick(FAIL_POINTS))
    return len(scheduler.names) > 1


def hand_over_twice(scheduler: Scheduler) -> bool:
    """A process stands still in a transaction; whoever takes its partitions over loses them before that times out."""
    scheduler.fail_points[scheduler.pick(scheduler.names)] = ("hand-over twice", scheduler.pick(IN_A_TRANSACTION))
    return len(scheduler.names) > 1 and scheduler.kafka.session_s < TRANSACTION_TIMEOUT_S


def strike_there(scheduler: Scheduler, process: Process) -> None:
    """A process has come to its fail point."""
    kind, where = scheduler.fail_points.pop(process.name)
    scheduler.reach(f"{kind} there: {where}")
    match kind:
        case "crash":
            scheduler.crash(process, back_after_s=scheduler.pick((0.1, 5.0, 60.0)))
        case "freeze":
            scheduler.freeze(process, scheduler.pick((0.5, 5.0, 12.0, 100.0)))
        case "hand-over twice":
            scheduler.freeze(process, scheduler.pick((12.0, 100.0)))
            owned = list(process.source.ownership.owned)
            scheduler.at(
                scheduler.now + scheduler.kafka.session_s + scheduler.pick((0.5, 1.0, 3.0)),
                partial(_crash_heirs, scheduler, owned),
            )
        case "rebalance":
            scheduler.kafka.restless = True
            scheduler.rebalance(shuffled=True)


def _crash_heirs(scheduler: Scheduler, owned: list[Partition]) -> None:
    for process in list(scheduler.processes.values()):
        if process is not None and any(scheduler.oracle.is_owner(process, at) for at in owned):
            scheduler.crash(process, back_after_s=scheduler.pick((0.1, 5.0)))


def cut(scheduler: Scheduler) -> bool:
    process = scheduler.processes[scheduler.pick(scheduler.names)]
    if process is None:
        return False
    _cut(scheduler, process, scheduler.pick((5.0, 100.0)))
    return True


def _cut(scheduler: Scheduler, process: Process, seconds: float) -> None:
    scheduler.say(f"{process.id} is cut off from Kafka")
    process.cut = True
    scheduler.kafka.listen(process)
    scheduler.at(scheduler.now + seconds, partial(scheduler.reconnect, process))
    scheduler.at(scheduler.now + scheduler.kafka.session_s)


def stop(scheduler: Scheduler) -> bool:
    process = _running(scheduler)
    if process is not None:
        scheduler.say(f"{process.id} is asked to stop")
        process.terminate()
    return process is not None


def start(scheduler: Scheduler) -> bool:
    scheduler.start_again(scheduler.pick(scheduler.names))
    return True


def reshuffle(scheduler: Scheduler) -> bool:
    scheduler.kafka.restless = True
    return True


def forget_marks(scheduler: Scheduler) -> bool:
    """The low-water marks expire; a running process writes them again with its next transaction."""
    _forget(scheduler, TOPICS.delay)
    return True


def forget_marks_meanwhile(scheduler: Scheduler) -> bool:
    """They expire while nobody runs, so whoever starts must find what is pending without them."""
    for process in list(scheduler.processes.values()):
        if process is not None:
            scheduler.crash(process, back_after_s=scheduler.pick((5.0, 60.0)))
    _forget(scheduler, TOPICS.delay)
    pending = any(log.live for (topic, _), log in scheduler.kafka.logs.items() if topic == TOPICS.delay)
    if pending and not any(topic == TOPICS.delay for topic, _ in scheduler.kafka.committed):
        scheduler.reach("a mark expired while something was pending, and nobody ran")
    return True


def forget_offsets(scheduler: Scheduler) -> bool:
    recorded = all(
        scheduler.oracle.recorded_position(n) == position for n, position in scheduler.oracle.positions.items()
    )
    if scheduler.kafka.members or not recorded or scheduler.source_recreated:
        return False  # what an operator has decided is recorded with the next transaction
    _forget(scheduler, TOPICS.source)
    return True


def _forget(scheduler: Scheduler, topic: str) -> None:
    for at in [at for at in scheduler.kafka.committed if at[0] == topic and not scheduler.kafka.undecided([at])]:
        del scheduler.kafka.committed[at]


def compact(scheduler: Scheduler) -> bool:
    delay = [log for (topic, _), log in scheduler.kafka.logs.items() if topic == TOPICS.delay]
    if sum(log.compact(scheduler.now) for log in delay):
        scheduler.reach("compacted")
    return True


def redrive(scheduler: Scheduler) -> None:
    """Somebody redrives a dead letter of an event with its order's document, a fact or an item, where there is one."""
    fitting = [each for each in scheduler.events if scheduler.oracle.can_be_redriven(each)]
    if not fitting or scheduler.healing or scheduler.source_recreated or scheduler.oracle.incarnation:
        return  # a redrive does not say in which topic its event lay at first
    scheduler.reach("a dead letter was redriven")
    event = scheduler.pick(fitting)
    number, now = len(scheduler.events), scheduler.now
    if event.item is not None:
        scheduler.reach("an item was redriven")
        again = workload.redriven_item(event, number, now)
    elif event.document:
        again = workload.redriven(event, number, now, says_first=scheduler.chance(0.9))
    else:
        again = workload.again(event, number, now, nature="ordinary", redriven=True)
    scheduler.events.append(again)
    scheduler.put(again, event.partition)


def strike_document(scheduler: Scheduler, process: Process, *, answered: bool) -> None:
    """A document of this process is under way. `answered`: by a gateway, while Engage is still at work on it."""
    if not scheduler.strikes_left or scheduler.healing or scheduler.chance(0.5 if answered else 0.7):
        return
    scheduler.strikes_left -= 1
    kind = "rebalance" if answered else scheduler.pick(("freeze", "rebalance", "rebalance", "crash", "cut"))
    scheduler.reach(f"{kind} while a document is under way")
    strikes: dict[str, Callable[[], object]] = {
        "freeze": partial(_freeze_it, scheduler, process),
        "rebalance": partial(_move_partitions, scheduler),
        "crash": partial(_crash_it, scheduler, process),
        "cut": partial(_cut_it, scheduler, process),
    }
    scheduler.at(scheduler.now + scheduler.pick((0.0, 0.1)), strikes[kind])


def _freeze_it(scheduler: Scheduler, process: Process) -> None:
    if process.responsive:
        scheduler.freeze(process, scheduler.pick((20.0, 100.0, 100.0)))


def _crash_it(scheduler: Scheduler, process: Process) -> None:
    if process.responsive:
        scheduler.crash(process, back_after_s=5.0)


def _cut_it(scheduler: Scheduler, process: Process) -> None:
    if process.responsive:
        _cut(scheduler, process, 100.0)


def strike_late_document(scheduler: Scheduler) -> None:
    """A document is under way without an answer, and its action's deadline has passed: mostly all is healed by then."""
    scheduler.reach("a document without an answer was under way at its action's deadline")
    scheduler.at(scheduler.now + scheduler.pick((0.1, 1.0)), partial(_exchange_partitions, scheduler))


def _move_partitions(scheduler: Scheduler) -> None:
    """Give each member the partitions of another one."""
    if scheduler.healing:
        return
    _exchange_partitions(scheduler)


def _exchange_partitions(scheduler: Scheduler) -> None:
    scheduler.kafka.restless = True
    order = [at for member in reversed(scheduler.kafka.members.values()) for at in sorted(member.owned)]
    if scheduler.kafka.can_rebalance() and len(order) == len(scheduler.kafka.partitions):
        scheduler.kafka.rebalance(order)


def delete_records(scheduler: Scheduler) -> bool:
    log = scheduler.kafka.logs[TOPICS.source, scheduler.pick(scheduler.numbers)]
    if scheduler.source_recreated:
        return False
    if not scheduler.chance(0.3) or log.end == log.start or not scheduler.oracle.is_known(log.partition):
        return False
    log.delete_before(scheduler.draw.randint(log.start + 1, log.end))
    scheduler.kafka.version += 1
    scheduler.say(f"retention: {log.topic}[{log.partition}] starts at {log.start}")
    if log.start > scheduler.oracle.position(log.partition):
        scheduler.reach("records were deleted unread")
    return True


# -- topics that change while the relays run


def grow(scheduler: Scheduler) -> bool:
    """The source gets a partition. The group, the processes and the operator of the delay topic hear of it later."""
    if len(scheduler.numbers) >= MAX_PARTITIONS or scheduler.growing or scheduler.source_recreated:
        return False
    scheduler.growing = True
    number = scheduler.add_source_partition()
    scheduler.say(f"{TOPICS.source} has {number + 1} partitions")
    scheduler.at(scheduler.now + scheduler.pick((0.1, 2.0)), scheduler.let_the_group_hear)
    scheduler.at(scheduler.now + scheduler.pick((0.0, 5.0, 60.0)), scheduler.grow_relay_topics)
    for process in scheduler.processes.values():
        if process is not None:
            scheduler.at(scheduler.now + scheduler.pick((0.1, 5.0)), partial(_counted, scheduler, process))
    return True


def _counted(scheduler: Scheduler, process: Process) -> None:
    """librdkafka's statistics tell."""
    if not process.responsive:
        if process.alive:
            scheduler.at(scheduler.now + 5.0, partial(_counted, scheduler, process))
    elif process.source.started:
        scheduler.reach("a process heard that the source has grown")
        process.source.counted(len(scheduler.numbers))
    else:
        scheduler.at(scheduler.now + 0.1, partial(_counted, scheduler, process))


def recreate(scheduler: Scheduler) -> bool:
    """The delay topic is deleted and created again: all that is pending is in the processes' memory now, or nowhere."""
    kafka = scheduler.kafka
    if scheduler.oracle.incarnation or scheduler.source_recreated:
        return False  # both topics recreated: two accidents at once
    if scheduler.growing or not all(_is_known_elsewhere(scheduler, number) for number in scheduler.numbers):
        return False  # with positions, too, gone: an operator who starts again, with `run --from`
    if scheduler.has_delayed:
        return False  # offsets of the former topic that come for the new one: two accidents at once
    for number in scheduler.numbers:
        scheduler.oracle.bereave(number, _holder(scheduler, number))
    kafka.settle_gone(kafka.recreate(TOPICS.delay))
    if scheduler.chance(0.5):  # the group's coordinator has heard of it
        _forget(scheduler, TOPICS.delay)
    scheduler.say(f"{TOPICS.delay} was deleted and recreated")
    return True


def recreate_source(scheduler: Scheduler) -> bool:
    """The source is deleted and created again, under the processes. Some time later a person adopts it."""
    kafka = scheduler.kafka
    if scheduler.growing or scheduler.source_recreated or kafka.is_recreated(TOPICS.delay):
        return False
    if any(event.bereft for event in scheduler.events):
        return False  # both topics recreated: two accidents at once
    if not all(scheduler.oracle.recorded_position(n) == scheduler.oracle.position(n) for n in scheduler.numbers):
        return False  # what an operator has decided is recorded with the next transaction
    scheduler.source_recreated = True
    kafka.topic_id = f"topic-{scheduler.oracle.incarnation + 1}"
    kafka.recreate(TOPICS.source)
    kafka.version += 1
    scheduler.say(f"{TOPICS.source} was deleted and recreated")
    if scheduler.chance(0.5):  # the group's coordinator has heard of it
        _forget(scheduler, TOPICS.source)
    for process in scheduler.processes.values():
        if process is not None:
            scheduler.at(scheduler.now + scheduler.pick((0.1, 5.0)), partial(_looked, scheduler, process))
    scheduler.at(scheduler.now + scheduler.pick((5.0, 60.0)), scheduler.adopt_source)
    return True


def _looked(scheduler: Scheduler, process: Process) -> None:
    """The process looks which topic its source is now (SourceWatch.look)."""
    if process.responsive:
        process.source.look()
    elif process.alive:
        scheduler.at(scheduler.now + 5.0, partial(_looked, scheduler, process))


def _is_known_elsewhere(scheduler: Scheduler, number: int) -> bool:
    committed = scheduler.kafka.committed.get((TOPICS.source, number))
    if committed is None:
        return not scheduler.delay_log(number).latest
    return committed[0] == scheduler.oracle.position(number)


def _holder(scheduler: Scheduler, number: int) -> tuple[Process, Assignment] | None:
    """Who owns this partition and has its actions in memory."""
    at = (TOPICS.source, number)
    for process in scheduler.processes.values():
        if process is not None and (epoch := process.source.ownership.owned.get(at)) is not None:
            assignment = Assignment(*at, epoch)
            if scheduler.oracle.is_owner(process, at) and process.relay._ledger.open_of(assignment) is not None:
                return process, assignment
    return None


def refuse_dead_letters(scheduler: Scheduler) -> bool:
    """The dead-letter topic refuses some records, or all, for a while."""
    refusals: tuple[Refusal, ...] = get_args(Refusal)
    scheduler.kafka.refusal = scheduler.pick(refusals)
    scheduler.say(f"{TOPICS.dead_letters} refuses, {scheduler.kafka.refusal}")
    scheduler.at(scheduler.now + scheduler.pick((5.0, 60.0, 600.0)), scheduler.take_dead_letters)
    return True


def close_control(scheduler: Scheduler) -> bool:
    """The control topic takes no answers for a while: a right was withdrawn."""
    scheduler.kafka.closed.add(CONTROL)
    scheduler.say(f"{CONTROL} takes no answers")
    scheduler.at(scheduler.now + scheduler.pick((1.0, 5.0, 60.0)), scheduler.open_control)
    return True


def lose(scheduler: Scheduler) -> bool:
    """A delay partition is without a leader for a while, or several that one broker had, or one of the outcomes.

    A lost outcomes partition holds up all others of its instance until it is back: that comes only before the end.
    """
    number = scheduler.pick(scheduler.numbers)
    at = (TOPICS.delay, number)
    if TOPICS.outcomes is not None and not scheduler.healing and scheduler.chance(0.2):
        at = (TOPICS.outcomes, number)
    if at not in scheduler.kafka.logs or scheduler.kafka.lost:
        return False
    lost = {number}
    others = [each for each in scheduler.numbers if each != number and (at[0], each) in scheduler.kafka.logs]
    if at[0] == TOPICS.delay and others and scheduler.chance(0.5):
        if len(others) > 1 or scheduler.healing:  # then one is to end what it has, whatever the others do
            others.remove(scheduler.pick(others))
        lost.update(others)
    if len(lost) > 1:
        scheduler.reach("several partitions are lost")
    scheduler.kafka.lost.update((at[0], each) for each in lost)
    scheduler.say(f"{at[0]}{sorted(lost)} is lost")
    scheduler.at(scheduler.now + scheduler.pick((5.0, 60.0, 600.0)), scheduler.find_partitions)
    return True


def jump(scheduler: Scheduler) -> bool:
    """A machine's wall clock is set an hour forward or back. Its processes do not notice; those after them do."""
    if not scheduler.profile.skew_s:
        return False
    name = scheduler.pick(scheduler.names)
    scheduler.wall_offset[name] += scheduler.pick((-HOUR_S, HOUR_S))
    process = scheduler.processes[name]
    if process is not None and scheduler.chance(0.6):
        scheduler.crash(process, back_after_s=5.0)
    return True


def pause(scheduler: Scheduler) -> bool:
    """Somebody puts actions on hold for a while, or discards them."""
    if scheduler.healing or len(scheduler.control.pauses) >= MAX_PAUSES:
        return False
    scheduler.control.pause()
    return True


def refuse(scheduler: Scheduler) -> bool:
    """The group does not take a member any more: another one has its name, or a right was withdrawn."""
    process = _running(scheduler)
    if process is None or not process.source.membership.joined:
        return False
    process.source.refuse()
    return True


Fault = Callable[["Scheduler"], bool]
FAULTS: dict[str, tuple[int, Fault]] = {
    "crash": (2, crash),
    "crash there": (2, crash_there),
    "freeze": (1, freeze),
    "freeze there": (2, freeze_there),
    "rebalance there": (1, rebalance_there),
    "hand-over twice": (1, hand_over_twice),
    "long freeze": (1, freeze_for_long),
    "cut": (1, cut),
    "stop": (1, stop),
    "start": (1, start),
    "reshuffle": (1, reshuffle),
    "forget marks": (1, forget_marks),
    "marks expired meanwhile": (1, forget_marks_meanwhile),
    "forget offsets": (1, forget_offsets),
    "compact": (1, compact),
    "delete records": (1, delete_records),
    "more partitions": (1, grow),
    "delay topic recreated": (2, recreate),
    "source recreated": (1, recreate_source),
    "dead letters refused": (2, refuse_dead_letters),
    "partition lost": (2, lose),
    "clock jump": (2, jump),
    "member refused": (1, refuse),
    "pause": (2, pause),
}
OF_THE_SOURCE = ("more partitions", "source recreated", "delete records")  # each group's operator has to act then
_DRAWN = [name for name, (weight, _) in FAULTS.items() for _ in range(weight)]


def strike(scheduler: Scheduler) -> None:
    """Let one of them happen."""
    name = scheduler.pick(_DRAWN)
    _, fault = FAULTS[name]
    if scheduler.profile.neighbour == "own topics" and name in OF_THE_SOURCE:
        return
    if fault(scheduler):
        scheduler.reach(f"fault: {name}")
        scheduler.oracle.balance(scheduler.numbers)
