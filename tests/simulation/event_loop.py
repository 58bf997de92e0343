"""An event loop whose time is the simulation's. Only what consumer/relay uses of asyncio is here."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Handle:
    """A callback for later. asyncio's own costs a context and a repr that nobody asks for."""

    __slots__ = ("arguments", "callback", "gone")

    def __init__(self, callback: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.callback = callback
        self.arguments = arguments
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def run(self) -> None:
        if not self.gone:
            self.callback(*self.arguments)


Callback = tuple[Callable[..., object], tuple[object, ...]]


class VirtualLoop:
    """What asyncio and the relay need of a loop. `ready` may run now; `jobs` are for the executors' threads."""

    def __init__(
        self,
        clock: Callable[[], float],
        call_at: Callable[[float, Handle], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        """`call_at` puts a handle into `ready` when it is due."""
        self._as_loop = cast("asyncio.AbstractEventLoop", self)
        self._clock = clock
        self._call_at = call_at
        self._broken = broken
        self._coroutines: list[Coroutine[Any, Any, object]] = []
        self.ready: deque[Callback] = deque()
        self.jobs: deque[tuple[str, Callable[[], None]]] = deque()  # the restore's thread, and another one

    def run_ready(self, most: int) -> None:
        """Run up to so many callbacks, those included that become ready meanwhile."""
        if events._get_running_loop() is not self._as_loop:
            events._set_running_loop(self._as_loop)  # until another one runs: nothing else asks
        ready = self.ready
        while ready and most:
            most -= 1
            callback, arguments = ready.popleft()
            try:
                callback(*arguments)
            except BaseException as error:  # noqa: BLE001 - as a loop does
                self._broken(error)

    def wake(self, handle: Handle) -> None:
        """Its time has come."""
        self.ready.append((handle.run, ()))

    def next_job(self, busy: set[str]) -> str | None:
        """Return the thread that can take a job, if one can."""
        return next((thread for thread, _ in self.jobs if thread not in busy), None)

    def run_job(self, thread: str) -> None:
        """Run its first job, on that thread."""
        job = next(job for job in self.jobs if job[0] == thread)
        self.jobs.remove(job)
        job[1]()

    def discard(self) -> None:
        """Release everything, as a dead process does."""
        for coroutine in self._coroutines:
            coroutine.close()
        self._coroutines.clear()
        self.ready.clear()
        self.jobs.clear()

    def call_soon(self, callback: Callable[..., object], *args: object, context: Context | None = None) -> Callback:
        self.ready.append(call := (callback, args))
        return call  # nobody takes it back

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(callback, args)
        self._call_at(self._clock() + delay if delay > 0 else self._clock(), handle)
        return handle

    def set_exception_handler(self, handler: object) -> None:
        """The relay's would end the process; here what nobody caught is a violation."""

    def time(self) -> float:
        return self._clock()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(self, coro: Coroutine[Any, Any, T], **_: object) -> asyncio.Task[T]:
        self._coroutines.append(coro)
        task = asyncio.Task(coro, loop=self._as_loop)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a crash leaves them as they are
        return task

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        future = self.create_future()

        def job() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 - as an executor does: whoever waits for it gets it
                self.call_soon(_settle, future, None, error)
            else:
                self.call_soon(_settle, future, result, None)

        self.jobs.append(("other" if executor is None else "restore", job))
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._broken(context.get("exception") or RuntimeError(context["message"]))


def leave() -> None:
    """Let the thread be without a running loop again."""
    events._set_running_loop(None)


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
