"""engage-relay: order events on Kafka become accepted Voyado Engage order actions."""

from importlib.metadata import version

__version__ = version("engage-relay")
