"""An event loop whose time is the world's. Only what consumer/relay.py uses of asyncio is here."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")


class Time(Protocol):
    """The world's clock and its timers."""

    @property
    def now(self) -> float:
        """Seconds since 1970."""

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Have this called then."""


class VirtualLoop:
    """What asyncio and the relay need of a loop. `ready` may run now; `jobs` are for the executors' threads."""

    def __init__(self, time: Time, broken: Callable[[BaseException], None]) -> None:
        self._as_loop = cast("asyncio.AbstractEventLoop", self)
        self._time = time
        self._broken = broken
        self._coroutines: list[Coroutine[Any, Any, object]] = []
        self.ready: deque[asyncio.Handle] = deque()
        self.jobs: deque[tuple[str, Callable[[], None]]] = deque()  # the restore's thread, and another one

    def run_ready(self, most: int) -> None:
        """Run up to so many of the callbacks that are ready by now."""
        before = events._get_running_loop()
        events._set_running_loop(self._as_loop)
        try:
            for _ in range(min(most, len(self.ready))):
                handle = self.ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(before)

    def discard(self) -> None:
        """Let go of everything, as a dead process does."""
        for coroutine in self._coroutines:
            coroutine.close()
        self._coroutines.clear()
        self.ready.clear()
        self.jobs.clear()

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time.now + max(0.0, delay), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        self._time.at(when, lambda: None if handle.cancelled() else self.ready.append(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio.TimerHandle tells the loop; the world looks when its time comes."""

    def set_exception_handler(self, handler: object) -> None:
        """The relay's would end the process; here what nobody caught is a violation."""

    def time(self) -> float:
        return self._time.now

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


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
