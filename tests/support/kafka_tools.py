"""Kafka's own command-line tools under the names that they have in its `bin/`, for what documents tell to run.

They are Java classes; a script for each starts the one that Kafka's own script starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.support.broker import BROKER, DEFAULT_VERSION, JVM, kafka_jars
from tests.support.downloads import needed

TOOLS: Mapping[str, str] = {
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-transactions.sh": "org.apache.kafka.tools.TransactionsCommand",
}


def kafka_tools(directory: Path) -> Path:
    """Write the scripts into a directory, which is for the PATH. Skips the test where there is no Java or Maven."""
    jars = needed("tools of Kafka", lambda: [kafka_jars(DEFAULT_VERSION, each) for each in ("kafka-tools", BROKER)])
    classes = ":".join(f"{each}/*" for each in jars)
    directory.mkdir(parents=True, exist_ok=True)
    for name, main in TOOLS.items():
        java = shlex.join(["java", *JVM, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes, main])
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec {java} "$@"\n')
        script.chmod(0o755)
    return directory
