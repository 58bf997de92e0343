"""What is generated in the chart: the values table of its README, and the relay's part of `values.schema.json`.

    python -m tools.chart_values            # write both
    python -m tools.chart_values --check    # exit code 1 where one is not current

The table comes from the comments of `values.yaml`: a comment that begins with `# --` describes the key below it, as a
whole; a key without one is a section, whose keys are all described. The schema's `$defs` come from the settings model,
so that Helm refuses a misspelt key of `config` as the relay does; everything else in that file is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from consumer.config.settings import json_schema

CHART = Path(__file__).parents[1] / "helm" / "engage-relay"
BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


@dataclass(frozen=True, slots=True)
class Value:
    """A row of the table. `description` is empty where nobody wrote one."""

    key: str
    default: object
    description: str


def values(text: str) -> list[Value]:
    """Return the described values of a `values.yaml`, in its order; keys that nothing describes with no description."""
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("values.yaml must be a mapping")
    return list(_rows(root, "", yaml.safe_load(text), text.splitlines()))


def _rows(node: yaml.MappingNode, prefix: str, loaded: dict[str, object], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        name, default = prefix + key.value, loaded[key.value]
        description = _above(lines, key.start_mark.line)
        if not description and isinstance(value, yaml.MappingNode) and isinstance(default, dict) and default:
            yield from _rows(value, f"{name}.", default, lines)
        else:
            yield Value(name, default, description)


def _above(lines: list[str], line: int) -> str:
    """Return what the comment right above a line says from its `# --` on."""
    said: list[str] = []
    while line > 0 and (text := lines[line - 1].strip()).startswith("#"):
        said.insert(0, text.removeprefix("#").strip())
        if said[0].startswith("-- "):
            return " ".join(said).removeprefix("-- ")
        line -= 1
    return ""


def table(text: str) -> str:
    """Return the README's table of a `values.yaml`."""
    rows = ["| value | default | what it is |", "| --- | --- | --- |"]
    for each in values(text):
        default = json.dumps(each.default, ensure_ascii=False)
        rows.append(f"| `{each.key}` | `{_cell(default)}` | {_cell(each.description)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def readme(current: str) -> str:
    """Return the README with its table rewritten."""
    before, _, remainder = current.partition(BEGIN)
    _, _, after = remainder.partition(END)
    return before + BEGIN + table((CHART / "values.yaml").read_text()) + END + after


def schema(current: str) -> str:
    """Return `values.schema.json` with the relay's own part rewritten.

    Two things differ from the relay's schema: `routes` is a list (Helm sorts a mapping; the templates refuse one with
    that reason), and what is missing altogether is also left to the templates, which say where it goes.
    """
    ours = json.loads(current)
    relay = json_schema()
    definitions = relay.pop("$defs")
    settings = {key: value for key, value in relay.items() if not key.startswith("$")}
    settings["properties"]["routes"] = {"type": ["array", "object"], "items": {"$ref": "#/$defs/NamedRoute"}}
    definitions["Engage"]["properties"]["connections"].pop("minProperties")
    rule = definitions.pop("RouteRule")
    definitions["NamedRoute"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {"type": "string", "minLength": 1}, **rule["properties"]},
        # The name alone switches a built-in route off.
        "anyOf": [{"required": rule["required"]}, {"maxProperties": 1}],
    }
    ours["$defs"] = {**definitions, "Settings": settings}
    return json.dumps(ours, indent=2, ensure_ascii=False) + "\n"


GENERATED = {"README.md": readme, "values.schema.json": schema}


def drifted() -> list[str]:
    """Return the names of the files that are not current."""
    return [name for name, made in GENERATED.items() if made(text := (CHART / name).read_text()) != text]


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    if arguments == ["--check"]:
        for name in (found := drifted()):
            sys.stderr.write(f"{CHART / name} is not current: python -m tools.chart_values\n")
        return int(bool(found))
    for name, made in GENERATED.items():
        (CHART / name).write_text(made((CHART / name).read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
