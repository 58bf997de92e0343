"""Reads Protobuf behind a Schema Registry's frame. No generated class is needed: the schema tells the message."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import grpc_tools
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.confluent import meta_pb2
from confluent_kafka.schema_registry.confluent.type import decimal_pb2, variant_pb2
from confluent_kafka.schema_registry.confluent.types import decimal_pb2 as former_decimal_pb2
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DESCRIPTOR as DESCRIPTORS
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type import latlng_pb2

from consumer.events.decoding import MAX_NESTING, TOO_DEEP, Undecodable
from consumer.events.formats import debezium
from consumer.events.formats.formats import Named, Reader
from consumer.events.formats.values import TooDeepError, as_json
from consumer.kafka.registry.schemas import UnusableSchemaError

COMPILE_S = 30.0
_IN_MEMORY = "/dev/shm"  # noqa: S108 - a folder of its own is made in it. Each container has it, and may write to it
_FILE = "the-schema-itself.proto"
# Where the files lie that schemas import and no registry has: google/protobuf, google/type.
_INCLUDED = (Path(grpc_tools.__file__).parent / "_proto", Path(latlng_pb2.__file__).parents[2])
# Confluent's own, which its serialisers never register as references: tags of a field, Connect's decimals.
_CONFLUENTS = tuple(each.DESCRIPTOR for each in (meta_pb2, decimal_pb2, variant_pb2, former_decimal_pb2))
_NOT_FOUND = re.compile(r"^([^:\s]{1,200}): File not found", re.MULTILINE)
_BY_ID = {"subject.name.strategy.type": "TOPIC"}


def protobuf_reader(schema: Schema, references: Mapping[str, Schema]) -> Reader:
    """Return what reads the values of a schema; `references` are by the name under which it imports them.

    Raises UnusableSchemaError where it cannot be compiled.
    """
    descriptor = compiled(schema, references)
    deserialisers: dict[tuple[int, ...], Callable[[bytes], Message | None]] = {}

    def read(value: bytes, *, as_change: bool) -> Named | Undecodable:
        try:
            frame = SchemaId("PROTOBUF")
            frame.from_bytes(BytesIO(value))
            indexes = tuple(frame.message_indexes or (0,))
            deserialise = deserialisers.get(indexes)
            if deserialise is None:
                deserialise = deserialisers[indexes] = _deserialiser(_message(descriptor, indexes))
            message = deserialise(value)
            event = _event(message)
        except TooDeepError:
            return Undecodable(TOO_DEEP)
        except Exception as error:  # noqa: BLE001 - the library's decoder, given any bytes
            return Undecodable(f"its bytes are not what its schema says ({type(error).__name__})")
        if as_change and isinstance(event := debezium.unwrapped(event), Undecodable):
            return event
        return Named(event, None if message is None else message.DESCRIPTOR.full_name)

    return read


def _deserialiser(message: Descriptor) -> Callable[[bytes], Message | None]:
    # Without a registry: the schema was fetched, and a value needs no other one.
    return cast("Callable[[bytes], Message | None]", ProtobufDeserializer(GetMessageClass(message), _BY_ID))


def compiled(schema: Schema, references: Mapping[str, Schema]) -> FileDescriptor:
    """Compile a schema. protoc runs as a process of its own: it writes to stderr, and is given what others registered.

    Registries could do it, too (`?format=serialized`), but not all of them.
    """
    with _folder() as folder:
        root, result, known = Path(folder, "schemas"), Path(folder, "compiled"), Path(folder, "known")
        known.write_bytes(_known_files())
        for name, each in {**references, _FILE: schema}.items():
            target = (root / name).resolve()
            if not target.is_relative_to(root.resolve()):
                raise UnusableSchemaError("an import leads out of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(each.schema_str or "", encoding="utf-8")
        paths = [f"-I{each}" for each in (root, *_INCLUDED)]
        out = (f"--descriptor_set_in={known}", f"-o{result}", "--include_imports")
        command = [sys.executable, "-m", "grpc_tools.protoc", *paths, *out, _FILE]
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_S, check=False)  # noqa: S603 - fixed words
        if done.returncode:
            raise UnusableSchemaError(_why_refused(done.stderr.decode(errors="replace")))
        files = FileDescriptorSet.FromString(result.read_bytes())
    pool = DescriptorPool()
    for file in files.file:  # each after those that it imports
        pool.Add(file)
    return pool.FindFileByName(_FILE)


def _known_files() -> bytes:
    """Return what protoc looks into for an import that is in none of its folders."""
    files = FileDescriptorSet()
    for each in (DESCRIPTORS, *_CONFLUENTS):
        each.CopyToProto(files.file.add())
    return files.SerializeToString()


def _why_refused(said: str) -> str:
    if (missing := _NOT_FOUND.search(said)) is not None:
        return f"it imports {missing[1]}, which is not among its references in the registry"
    return "protoc refuses it"


def _folder() -> TemporaryDirectory[str]:
    """Return a folder that is gone afterwards. In a pod whose root file system is read-only, it is in memory."""
    try:
        return TemporaryDirectory()
    except FileNotFoundError:  # no folder is there for it
        return TemporaryDirectory(dir=_IN_MEMORY)


def _message(file: FileDescriptor, indexes: Sequence[int]) -> Descriptor:
    """Return the message that a frame names: by its place in the file, then in the message around it."""
    described = FileDescriptorProto()
    file.CopyToProto(described)
    top = described.message_type[_within(indexes[0], described.message_type)]
    found: Descriptor = file.message_types_by_name[top.name]
    for index in indexes[1:]:
        found = found.nested_types[_within(index, found.nested_types)]
    return found


def _within(index: int, some: Sequence[object]) -> int:
    if not 0 <= index < len(some):
        raise IndexError
    return index


def _event(message: Message | None) -> object:
    """Return a message as JSON has it, by Protobuf's own mapping (`order_id` is `orderId`), defaults included."""
    if message is None:
        return None
    return _without_empty(_printed(message))


def _printed(message: Message) -> dict[str, object]:
    """Return a message by Protobuf's JSON mapping. A message in it that has none stays fields: one stops no event.

    Those are an `Any` of a type that the schema does not have, a time beyond the year 9999, NaN in a `Struct`.
    """
    try:
        return MessageToDict(message, always_print_fields_with_no_presence=True)
    except (SerializeToJsonError, TypeError, ValueError):
        messages = {field: value for field, value in message.ListFields() if _holds_messages(field)}
        is_known = message.DESCRIPTOR.file.package == "google.protobuf"  # then its own mapping failed
        if not messages and not is_known:
            raise
    rest = type(message)()
    rest.CopyFrom(message)
    for field in messages:
        rest.ClearField(field.name)
    fields = {each.json_name: _plain(value) for each, value in rest.ListFields()} if is_known else _printed(rest)
    return {**fields, **{field.json_name: _printed_in(value) for field, value in messages.items()}}


def _plain(value: object) -> object:
    return as_json(list(value) if isinstance(value, MutableSequence) else value)


def _holds_messages(field: FieldDescriptor) -> bool:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        kind = kind.fields_by_name["value"].message_type
    return kind is not None


def _printed_in(value: object) -> object:
    match value:
        case Message():
            return _printed(value)
        case Mapping():
            return {str(key): _printed(each) for key, each in value.items()}
    return [_printed(each) for each in cast("Sequence[Message]", value)]


def _without_empty(value: object, depth: int = 0) -> object:
    """Make an empty text null: without `optional`, Protobuf writes the same for one that was never set."""
    if value == "":
        return None
    if isinstance(value, dict | list) and depth >= MAX_NESTING:
        raise TooDeepError
    if isinstance(value, dict):
        return {name: _without_empty(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [each if each == "" else _without_empty(each, depth + 1) for each in value]
    return value
