"""Kafka and Engage as they are met in production: both behind TLS, and a broker that asks who comes and what he may.

The broker lets nobody in through SASL_SSL without a password (SCRAM-SHA-512) nor through SSL without a certificate
(mTLS), and allows only what an ACL grants. PLAINTEXT stays for the test itself, as an operator's entrance.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from consumer.kafka import clients
from tests.support.broker import PROPERTIES, KafkaBroker
from tests.support.waiting import PATIENCE_S

USER = "engage-relay"


@dataclass(frozen=True)
class Right:
    """An operation that ACLs may grant: `Right("topic", "orders", "READ")`."""

    resource: str
    name: str
    operation: str
    prefix: bool = False

    def binding(self) -> AclBinding:
        return AclBinding(*self._fields())

    def filter(self) -> AclBindingFilter:
        return AclBindingFilter(*self._fields())

    def _fields(
        self,
    ) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
        return (
            ResourceType[self.resource.upper().replace(" ", "_")],
            self.name,
            ResourcePatternType.PREFIXED if self.prefix else ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            AclOperation[self.operation],
            AclPermissionType.ALLOW,
        )


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, what it signed for the broker and for a client, and what others forged."""

    directory: Path
    authority: trustme.CA

    @classmethod
    def issue(cls, directory: Path) -> Certificates:
        made = cls(directory, trustme.CA())
        made.authority.cert_pem.write_to_path(made.authority_file)
        trustme.CA().cert_pem.write_to_path(made.other_authority_file)
        _write_pair(made.authority.issue_cert("127.0.0.1"), made.broker_file)
        _write_pair(made.authority.issue_cert("relay.example", common_name=USER), made.client_file)
        _write_pair(trustme.CA().issue_cert("relay.example", common_name=USER), made.forged_file)
        return made

    @property
    def authority_file(self) -> Path:
        return self.directory / "authority.pem"

    @property
    def other_authority_file(self) -> Path:
        return self.directory / "other-authority.pem"

    @property
    def broker_file(self) -> Path:
        return self.directory / "broker.pem"

    @property
    def client_file(self) -> Path:
        return self.directory / "client.pem"

    @property
    def forged_file(self) -> Path:
        """The client's name, signed by somebody else."""
        return self.directory / "forged.pem"


def _write_pair(pair: trustme.LeafCert, file: Path) -> None:
    """Write a key and its certificates as Kafka and librdkafka both read them: PKCS#8."""
    key = load_pem_private_key(pair.private_key_pem.bytes(), None)
    chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)


class SecuredBroker:
    """The broker, and what an operator does there."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.broker = KafkaBroker(_properties(certificates), listeners=("SASL_SSL", "SSL"))
        self._admin: AdminClient | None = None

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.broker.bootstrap_servers}, logger=clients.LOGGER)
        return self._admin

    def scram(self, password: str) -> dict[str, object]:
        """Return the properties of a client that comes with a password."""
        return {
            "bootstrap.servers": self.broker.address("SASL_SSL"),
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER,
            "sasl.password": password,
            "ssl.ca.location": str(self.certificates.authority_file),
        }

    def mutual_tls(self, pair: Path | None) -> dict[str, object]:
        """Return the properties of a client that comes with a certificate, or with none."""
        shown = {} if pair is None else {"ssl.certificate.location": str(pair), "ssl.key.location": str(pair)}
        return {
            "bootstrap.servers": self.broker.address("SSL"),
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.certificates.authority_file),
            **shown,
        }

    def set_password(self, password: str) -> None:
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion(USER, credential, password.encode())
        for done in self.admin.alter_user_scram_credentials([wanted]).values():
            done.result(PATIENCE_S)

    def grant(self, *rights: Right) -> None:
        for done in self.admin.create_acls([each.binding() for each in rights]).values():
            done.result(PATIENCE_S)

    def withdraw(self, *rights: Right) -> None:
        for done in self.admin.delete_acls([each.filter() for each in rights]).values():
            done.result(PATIENCE_S)


def _properties(certificates: Certificates) -> dict[str, str]:
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.broker_file),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.authority_file),
    }
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return {
        "listener.security.protocol.map": f"{PROPERTIES['listener.security.protocol.map']},SASL_SSL:SASL_SSL,SSL:SSL",
        **tls,
        "listener.name.ssl.ssl.client.auth": "required",
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",  # so that both ways in lead to the same user
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",  # PLAINTEXT and the controller
    }


@contextmanager
def behind_tls(plain_url: str, certificate: trustme.LeafCert) -> Iterator[str]:
    """Put TLS in front of a server on this machine; yields the https URL."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(tls)
    behind = int(plain_url.rpartition(":")[2])
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()

    async def serve() -> None:
        stop = asyncio.Event()
        carrying: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", behind)
            ways = {asyncio.create_task(carry(reader, back)), asyncio.create_task(carry(there, writer))}
            carrying.update(ways)
            await asyncio.wait(ways)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        loop = asyncio.get_running_loop()
        started.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()
        server.close()
        if carrying:
            await asyncio.wait(carrying, timeout=PATIENCE_S)  # our caller's server and clients are gone by now

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="tls", daemon=True)
    thread.start()
    port, stop = started.result(PATIENCE_S)
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        stop()
        thread.join(PATIENCE_S)
