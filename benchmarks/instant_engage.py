"""An Engage that answers at once, so that all the time that passes is the relay's. Run as a process of its own.

It answers what a relay of canonical events with a job asks (GET job, POST action), checks that each action bears its
own order's tag, and counts. It prints its port. No framework: plain_http.py on uvloop.

Job `job-x` belongs to order `order-x`, whose versionTag is `tag-x`.

`POST /watch?pid` names the process whose CPU time is noted when the first and the last action are accepted;
`GET /account` tells everything as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import uvloop
from pydantic_core import to_json

from benchmarks.plain_http import Served, response
from benchmarks.process import cpu_s

_JOB = b"/api/v3/orders/jobs/job-"
_ORDER = b"/api/v3/orders/order-"
_ACTION = b"/action"


@dataclass(slots=True, kw_only=True)
class Account:
    """What was asked and accepted. Times are monotonic seconds; CPU is the watched process's, in seconds.

    `repeated` counts acceptances of an order that had been accepted before, `wrong` requests that were refused.
    """

    jobs: int = 0
    actions: int = 0
    wrong: int = 0
    orders: int = 0
    repeated: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    first_cpu_s: float = 0.0
    last_cpu_s: float = 0.0


@dataclass(slots=True)
class Engage:
    """The state behind all connections."""

    expected: int
    watched: int | None = None
    account: Account = field(default_factory=Account)
    accepted: Counter[bytes] = field(default_factory=Counter)

    def answer(self, method: bytes, target: bytes, body: bytes) -> bytes:
        """Return the whole answer to a request."""
        if method == b"GET" and target.startswith(_JOB):
            self.account.jobs += 1
            x = target[len(_JOB) :]
            return response(
                b"200 OK",
                b'{"jobId":"job-%b","status":"Completed","orderId":"order-%b","versionTag":"tag-%b"}' % (x, x, x),
            )
        if method == b"POST" and target.startswith(_ORDER) and target.endswith(_ACTION):
            return self._act(target[len(_ORDER) : -len(_ACTION)], body)
        if method == b"POST" and target.startswith(b"/watch?"):
            self.watched = int(target.partition(b"?")[2])
            return response(b"200 OK", b"{}")
        if target == b"/account":
            self.account.orders = len(self.accepted)
            self.account.repeated = self.accepted.total() - len(self.accepted)
            return response(b"200 OK", to_json(asdict(self.account)))
        self.account.wrong += 1
        return response(b"404 Not Found", b"{}")

    def _act(self, x: bytes, body: bytes) -> bytes:
        account = self.account
        account.actions += 1
        if b'"tag-%b"' % x not in body:
            account.wrong += 1
            return response(b"404 Not Found", b"{}")
        self.accepted[x] += 1
        if account.first_at == 0.0:
            account.first_at, account.first_cpu_s = time.monotonic(), self._cpu_s()
        account.last_at = time.monotonic()
        if len(self.accepted) == self.expected and account.last_cpu_s == 0.0:
            account.last_cpu_s = self._cpu_s()
        return response(b"202 Accepted", b'{"status":"Accepted"}')

    def _cpu_s(self) -> float:
        return 0.0 if self.watched is None else cpu_s(self.watched)


async def _serve(expected: int) -> None:
    engage = Engage(expected)
    server = await asyncio.get_running_loop().create_server(lambda: Served(engage.answer), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
