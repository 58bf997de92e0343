"""The beginnings of configuration files: what every file may say, and the routes of one platform.

The routes are those of examples/06-platforms, which tests hold against the platforms' events. An installed relay has
them beside it.
"""

from __future__ import annotations

from pathlib import Path

import consumer

CANONICAL = "canonical"
_PACKAGE = Path(consumer.__file__).parent
_PLACES = (_PACKAGE / "platforms", _PACKAGE.parent / "examples" / "06-platforms")

_HEAD = """\
# engage-relay, for {platform}. What is commented out is the default. All keys: docs/configuration.md.
# Addresses and secrets may come from the environment instead: KAFKA_BOOTSTRAP_SERVERS, ENGAGE_BASE_URL,
# ENGAGE_API_KEY or ENGAGE_API_KEY_FILE.

# kafka:
#   bootstrap.servers: broker-1:9092,broker-2:9092
#   group.id: engage-relay
#   security.protocol: SASL_SSL
#   sasl.mechanism: SCRAM-SHA-512
#   sasl.username: engage-relay
#   sasl.password.file: /run/secrets/kafka-password

# engage:
#   connections:
#     default:
#       base_url: https://acme.voyado.com
#       api_key_file: /run/secrets/engage-api-key
#       user_agent: AcmeShop/1.0

# polling:
#   deadline: 24h         # an action that is not delivered by then becomes a dead letter

"""
_SOURCE = """\
source:
  topics: [orders]        # keyed by order, so that an order's events keep their sequence
# formats:
#   orders: {format: json}

"""
_NO_ROUTES = """\
# routes:                 # yours come first; the routes of the canonical event are built in
#   parcel-sent:
#     when: "kind == 'parcel-sent'"
#     action: ConfirmShipment
#     order_id: order.number
"""


def platforms() -> tuple[str, ...]:
    """Return the platforms that there are routes for, by name."""
    folder = next((each for each in _PLACES if each.is_dir()), None)
    return () if folder is None else tuple(sorted(each.parent.name for each in folder.glob("*/relay.yaml")))


def beginning(platform: str) -> str:
    """Return the text of a new file for a platform."""
    head = _HEAD.format(platform=platform)
    if platform == CANONICAL:
        return head + _SOURCE + _NO_ROUTES
    routes = next(file for each in _PLACES if (file := each / platform / "relay.yaml").is_file()).read_text()
    has_source = any(line.startswith("source:") for line in routes.splitlines())
    return head + ("" if has_source else _SOURCE) + routes
