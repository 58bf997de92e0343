"""The simulated Engage in its own process: no test's thread slows it, and it can be stopped in mid-answer."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.managers import BaseManager, BaseProxy
from typing import Self, TypeVar, Unpack, cast

from consumer.simulator.account import AcceptedAction
from tests.support.engage import API_KEY, Engage, EngageOptions

T = TypeVar("T")


class _Engage(Engage):
    """What is asked in one go."""

    def submit_all(self, orders: Sequence[str]) -> list[str]:
        return self._on_loop(lambda: [self._simulator.submit_order(order) for order in orders])

    def accepted_count(self) -> int:
        return self._on_loop(lambda: len(self._simulator.world.account.accepted))


class _Proxy(BaseProxy):
    _exposed_ = (
        "__getattribute__", "accepted_count", "actions_asked", "down", "max_in_a_second", "set_faults", "set_keys",
        "submit_all", "up",
    )  # fmt: skip


class _Manager(BaseManager):
    """Runs it."""


_Manager.register("Engage", _Engage, _Proxy)


class EngageProcess:
    """harness.Engage, elsewhere. See there."""

    def __init__(self, **options: Unpack[EngageOptions]) -> None:
        self._frozen_at: float | None = None
        self._frozen_s = 0.0
        self._manager = _Manager(ctx=get_context("spawn"))
        self._manager.start(signal.signal, (signal.SIGINT, signal.SIG_IGN))
        try:
            self._proxy = cast("_Proxy", self._manager.Engage(**options))  # type: ignore[attr-defined] # registered
            self.url: str = self._get("url")
        except BaseException:
            self._manager.shutdown()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self._manager.shutdown()

    def _call(self, method: str, *arguments: object) -> object:
        call: Callable[[str, tuple[object, ...]], object] = self._proxy._callmethod  # typeshed has it return nothing
        return call(method, arguments)

    def _get(self, name: str) -> T:  # type: ignore[type-var] # the caller knows its type
        return cast("T", self._call("__getattribute__", name))

    def submit_all(self, orders: Sequence[str]) -> list[str]:
        """Do what the commerce platform does before it publishes events; returns the jobs' ids."""
        return cast("list[str]", self._call("submit_all", orders))

    def up(self) -> None:
        """Come back, at the same address with the same orders."""
        self._call("up")

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._call("down")

    def freeze(self) -> None:
        """Hang: the kernel takes connections, and nobody answers. Nor must anything else be asked here until `thaw`."""
        self._signal(signal.SIGSTOP)
        self._frozen_at = time.monotonic()

    def thaw(self) -> None:
        """Continue."""
        self._signal(signal.SIGCONT)
        if self._frozen_at is not None:
            self._frozen_s = max(self._frozen_s, time.monotonic() - self._frozen_at)
            self._frozen_at = None

    def _signal(self, number: signal.Signals) -> None:
        process = vars(self._manager)["_process"]  # multiprocessing shows it nowhere else
        os.kill(process.pid, number)

    def set_faults(self, *faults: str) -> None:
        """Replace all faults."""
        self._call("set_faults", *faults)

    def set_keys(self, *valid: str) -> None:
        """Take these keys only; none: any."""
        self._call("set_keys", *valid)

    def accepted_count(self) -> int:
        """How many actions were accepted."""
        return cast("int", self._call("accepted_count"))

    @property
    def accepted(self) -> list[AcceptedAction]:
        """Every action that was accepted, in that order."""
        return self._get("accepted")

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How often each call was answered how: `("action", "202")`."""
        return self._get("requests")

    @property
    def faults(self) -> Counter[str]:
        """How often each fault befell a request."""
        return self._get("faults")

    def actions_asked(self) -> int:
        """How often an action was sent, whatever became of it."""
        return cast("int", self._call("actions_asked"))

    def max_in_a_second(self, key: str = API_KEY) -> int:
        """Return the most requests with this key in any sliding second."""
        return cast("int", self._call("max_in_a_second", key))

    @property
    def stood_still_s(self) -> float:
        """The longest time for which it got no processor, as in tests/support/engage.py; `freeze` is none of it."""
        stood_still_s: float = self._get("stood_still_s")
        return max(0.0, stood_still_s - self._frozen_s)
