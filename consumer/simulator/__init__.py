"""The Engage simulator: a simulated Engage over HTTP, for demos, tests and developers without access to Engage.

It answers as Engage's public documentation says, with the faults that the user asks for, and keeps an account of every
action that it accepted. Start reading at `world.py`: orders, versions, jobs, actions.

    chance.py   PURE  seeded draws and distributions of durations
    answer.py   PURE  one HTTP answer
    account.py  PURE  what was accepted and asked
    faults.py   PURE  which request gets which fault, and what each fault does (one table)
    moods.py    PURE  what Engage's documentation leaves open, and what differs from order to order
    bodies.py   PURE  what a request's body holds, and what is wrong with it
    world.py    PURE  orders, versions, jobs, actions
    options.py  PURE  what a user can choose
    api.py      PURE  one request in, one reaction out
    server.py   EDGE  sockets
"""

from consumer.simulator.moods import Moods
from consumer.simulator.options import SimulatorOptions
from consumer.simulator.server import Simulator, run, serve

__all__ = ["Moods", "Simulator", "SimulatorOptions", "run", "serve"]
