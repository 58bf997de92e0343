"""`engage-relay demo`: the real relay between a mock Kafka and a simulated Engage, and a tally that can fail.

story.py  PURE  the events of a few hundred orders, and the errors among them
tally.py  PURE  what became of each event, and whether that adds up
stage.py  EDGE  Kafka, Engage and the relay, put up and taken down
play.py         the story on the stage, with progress, and the tally at the end
"""

from __future__ import annotations

from consumer.demo.play import run_demo

__all__ = ["run_demo"]
