"""The relay's command line under a sampler: where does its CPU time go? `python -m benchmarks.sampled_relay run ...`.

    SIGUSR1 starts the sampling, SIGUSR2 ends it and writes a Profile as JSON to $BENCHMARK_PROFILE.

Method:
 1. The CPU of each thread is read from the kernel (/proc/self/task/*/schedstat, nanoseconds). Each of the relay's own
    threads has one task (thread's name), librdkafka's have a name that begins with `rdk`.
 2. Only the event loop's thread does many things: a timer on *that thread's* CPU clock (timer_create) interrupts it,
    and the innermost frame of ours (else of the HTTP library) says what it was busy with. C code counts for the
    frame that called it.
 3. A callback that has not begun yet was interrupted in the C code of the event loop, which called it. The loop's C
    code right before a coroutine continues counts for that coroutine: the event loop's share is a lower bound.

The kernel looks at such timers at its ticks, so more than some 250 samples per second of CPU are not to be had.
"""

from __future__ import annotations

import ctypes
import json
import opcode
import os
import signal
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

INTERVAL_NS = 4_000_000
PROFILE = "BENCHMARK_PROFILE"

EVENT_LOOP = "event loop"
HTTP = "HTTP engine"
OTHER = "everything else"
LIBRDKAFKA = "librdkafka"
COMPONENTS = {  # by the beginning of a module's path: the first that fits
    "consumer/engage/client": "Engage's API",
    "consumer/engage/meanings": "Engage's API",
    "consumer/engage/bodies": "Engage's API",
    "consumer/engage/jobs": "Engage's API",
    "consumer/engage": HTTP,
    "consumer/events": "decoding and routing",
    "schemas/order_event": "decoding and routing",
    "consumer/core/pacing": "pacing",
    "consumer/core": "ledger",
    "consumer/kafka/journal": "journal",
    "consumer/kafka/records": "records",
    "consumer/kafka/outcomes": "records",
    "schemas": "records",
    "consumer/relay": "relay (ticks and tasks)",
    "consumer/telemetry": "metrics",
}
THREADS = {"journal": "journal", "source": "source"}
_HTTP_LIBRARIES = ("httptools", "aiohappyeyeballs", "httpx")
_ROOT = Path(__file__).parent.parent
_OURS = tuple(f"{_ROOT / package}/" for package in ("consumer", "schemas"))

_LINUX_THREAD_CPUTIME = 3  # CLOCK_THREAD_CPUTIME_ID
_SIGEV_THREAD_ID = 4


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("padding", ctypes.c_byte * 44),
    )


class _TimerSpec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


def _start_timer() -> None:
    """Let SIGPROF come to this thread for each INTERVAL_NS of CPU time that it takes."""
    libc = ctypes.CDLL(None, use_errno=True)
    event = _SigEvent(None, signal.SIGPROF, _SIGEV_THREAD_ID, threading.get_native_id())
    timer = ctypes.c_void_p()
    spec = _TimerSpec(0, INTERVAL_NS, 0, INTERVAL_NS)
    if libc.timer_create(_LINUX_THREAD_CPUTIME, ctypes.byref(event), ctypes.byref(timer)) or libc.timer_settime(
        timer, 0, ctypes.byref(spec), None
    ):
        raise OSError(ctypes.get_errno(), "timer_create")


class _Sampler:
    def __init__(self) -> None:
        self._samples: Counter[tuple[str, str]] = Counter()  # component, function
        self._known: dict[CodeType, tuple[str, str] | None] = {}
        self._cpu_before: dict[int, int] = {}
        self._on = False

    def start(self, *_: object) -> None:
        self._cpu_before = _cpu_of_threads()
        signal.signal(signal.SIGPROF, self._take)
        _start_timer()
        self._on = True

    def stop(self, *_: object) -> None:
        self._on = False
        cpu: Counter[str] = Counter()
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        for task, nanoseconds in _cpu_of_threads().items():
            taken = nanoseconds - self._cpu_before.get(task, 0)
            cpu[_thread(task, names)] += taken
        profile = {
            "cpu_s_by_thread": {name: nanoseconds / 1e9 for name, nanoseconds in cpu.items()},
            "event_loop_samples": [[*where, count] for where, count in self._samples.most_common()],
        }
        target = Path(os.environ[PROFILE])
        target.with_suffix(".part").write_text(json.dumps(profile))
        target.with_suffix(".part").rename(target)

    def _take(self, _: int, frame: FrameType | None) -> None:
        if self._on:
            self._samples[self._where(frame)] += 1

    def _where(self, frame: FrameType | None) -> tuple[str, str]:
        """Return component and function: of the innermost frame of ours, else of the HTTP library's."""
        if frame is None or _not_begun(frame):
            return EVENT_LOOP, "uvloop"
        library: str | None = None
        while frame is not None:
            ours = self._ours(frame.f_code)
            if ours is not None:
                return ours
            library = library or _library_function(frame.f_code)
            frame = frame.f_back
        return (HTTP, library) if library else (EVENT_LOOP, "uvloop")

    def _ours(self, code: CodeType) -> tuple[str, str] | None:
        if code not in self._known:
            file = Path(code.co_filename)
            ours = str(file).startswith(_OURS)
            self._known[code] = (_component(file), f"{file.stem}.{code.co_qualname}") if ours else None
        return self._known[code]


def _component(file: Path) -> str:
    module = file.relative_to(_ROOT).as_posix()
    return next((name for begins, name in COMPONENTS.items() if module.startswith(begins)), OTHER)


def _not_begun(frame: FrameType) -> bool:
    """Tell whether this is a callback of the event loop at its very first instruction."""
    outermost = frame.f_back is None or "asyncio" in frame.f_back.f_code.co_filename
    return outermost and frame.f_code.co_code[frame.f_lasti] == opcode.opmap["RESUME"]


def _library_function(code: CodeType) -> str | None:
    library = next((each for each in _HTTP_LIBRARIES if each in Path(code.co_filename).parts), None)
    return library and f"{library}: {code.co_qualname}"


def _thread(task: int, names: dict[int | None, str]) -> str:
    if task == os.getpid():
        return EVENT_LOOP
    if task in names:
        return THREADS.get(names[task], OTHER)
    return LIBRDKAFKA if _comm(task).startswith("rdk") else OTHER


def _comm(task: int) -> str:
    try:
        return Path(f"/proc/self/task/{task}/comm").read_text()
    except FileNotFoundError:
        return ""


def _cpu_of_threads() -> dict[int, int]:
    """Nanoseconds of CPU by task."""
    cpu: dict[int, int] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            cpu[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:  # it ended meanwhile
            continue
    return cpu


if __name__ == "__main__":
    sampler = _Sampler()
    signal.signal(signal.SIGUSR1, sampler.start)
    signal.signal(signal.SIGUSR2, sampler.stop)
    from consumer.commands.cli import main

    main()
