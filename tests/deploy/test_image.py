"""The image, without a container engine: the Dockerfile's own steps, run in a directory instead of a container.

What stays unproven here is the engine's part: layers, users, the base images' contents.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from consumer.config.settings import Settings
from tests.deploy.commands import accept
from tests.deploy.monitoring import ROOT

DOCKERFILE = ROOT / "Dockerfile"
STEP_TIMEOUT_S = 110.0  # the first run downloads the wheels (20 MB)
HOME = "/opt/engage-relay"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Instruction:
    """One of the Dockerfile's instructions, its lines joined."""

    name: str
    text: str


@dataclass
class Stage:
    """What lies between two FROMs."""

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [each.text for each in self.instructions if each.name == name]

    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for text in self.all("ENV") for pair in shlex.split(text)]
        return {name: value for name, _, value in pairs}


def parsed() -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first stage with their defaults, and the stages."""
    text = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text())
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, text = line.partition(" ")
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            stages.append(Stage(base, alias))
        elif stages:
            stages[-1].instructions.append(Instruction(name, text))
        else:
            assert name == "ARG", line
            argument, _, default = text.partition("=")
            arguments[argument] = default
    return arguments, stages


ARGUMENTS, (UV, BUILD, FINAL) = parsed()


@dataclass(frozen=True)
class Image:
    """What the steps made: the image's file system, as far as we make it."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a process in the container has, and nothing of ours."""
        found = FINAL.environment()
        return {
            **found,
            "PATH": found["PATH"].replace(HOME, f"{self.root}{HOME}").replace(":$PATH", ""),
            "ENGAGE_RELAY_CONFIG": f"{self.root}{found['ENGAGE_RELAY_CONFIG']}",
        }

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (program,) = json.loads(FINAL.all("ENTRYPOINT")[0])
        found = shutil.which(program, path=self.environment["PATH"])
        assert found is not None, f"{program} is not on the image's PATH"
        return subprocess.run(
            [found, *arguments],
            cwd=self.root / "empty",
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Run the build stage: its COPYs from the checkout, its RUNs as they are, its root a directory."""
    root = tmp_path_factory.mktemp("image")
    (root / "empty").mkdir()
    directory = root
    # uv and python3 replace those of the two base images.
    environment = {**os.environ, **BUILD.environment()}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment.pop("VIRTUAL_ENV", None)
    for step in BUILD.instructions:
        if step.name == "WORKDIR":
            directory = root / step.text.lstrip("/")
            directory.mkdir(parents=True)
        elif step.name == "COPY" and not step.text.startswith("--from="):
            *sources, target = step.text.split()
            for source in sources:
                copy(ROOT / source, directory / target)
        elif step.name == "RUN":
            command = re.sub(r"--mount=\S+ ", "", step.text)  # a cache; here it is uv's own
            command = re.sub(r" (/opt|/dist)\b", rf" {shlex.quote(str(root))}\1", command)
            done = subprocess.run(
                ["/bin/sh", "-ec", command],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                timeout=STEP_TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    built, *own = FINAL.all("COPY")
    assert built == f"--from={BUILD.name} {HOME} {HOME}"
    for text in own:
        source, target = text.split()
        (root / target.lstrip("/")).parent.mkdir(parents=True)
        copy(ROOT / source, root / target.lstrip("/"))
    return Image(root)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target / source.name if target.is_dir() else target)


def files(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in directory.rglob("*"):
        yield path, path.lstat().st_mtime_ns


# The steps


def test_the_steps_make_a_relay_that_runs(image: Image) -> None:
    done = image.run("--help")
    assert done.returncode == 0, done.stderr
    assert "Voyado Engage" in done.stdout


def test_the_simulator_and_the_contracts_came_along(image: Image) -> None:
    assert image.run("simulate", "--help").returncode == 0
    assert json.loads(image.run("config", "schema").stdout)["title"] == Settings.__name__


def test_it_says_the_version_that_its_label_has(image: Image) -> None:
    assert image.run("--version").stdout.strip() == PROJECT["version"]
    assert f"VERSION={PROJECT['version']}" in FINAL.all("ARG")


def test_the_routes_of_the_platforms_came_along(image: Image, tmp_path: Path) -> None:
    platforms = {path.parent.name for path in (ROOT / "examples" / "06-platforms").glob("*/relay.yaml")}
    assert platforms
    for platform in platforms:
        written = tmp_path / f"{platform}.yaml"
        done = image.run("config", "init", platform, "--file", str(written))
        assert (done.returncode, written.is_file()) == (0, True), done.stderr


def test_an_error_in_the_configuration_ends_as_documented(image: Image) -> None:
    done = image.run("check-config")
    assert done.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS" in done.stderr


def test_variables_are_enough_and_a_file_that_is_mounted_needs_no_option(image: Image) -> None:
    enough = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "ENGAGE_BASE_URL": "https://acme.voyado.com",
        "ENGAGE_API_KEY": "of-a-test",
    }
    assert image.run("check-config", **enough).returncode == 0

    file = Path(image.environment["ENGAGE_RELAY_CONFIG"])
    before = file.read_text()
    file.write_text("kafka: {group.id: mounted}\n")
    try:
        assert "mounted" in image.run("check-config", **enough).stdout
    finally:
        file.write_text(before)


def test_it_holds_what_was_locked_and_the_relay_and_nothing_else(image: Image) -> None:
    dist_infos = (image.root / "opt").glob("**/site-packages/*.dist-info")
    installed = {path.name.partition("-")[0].lower() for path in dist_infos} - {"engage_relay"}
    lock = (ROOT / "requirements.lock").read_text()
    here = re.findall(r"^([a-z0-9-]+)==[^ ]+(?: ; sys_platform != 'win32')? \\$", lock, re.MULTILINE)
    elsewhere = re.findall(r"^([a-z0-9-]+)==[^ ]+ ; .* \\$", lock, re.MULTILINE)
    assert {name.replace("-", "_") for name in here} <= installed
    assert installed <= {name.replace("-", "_") for name in (*here, *elsewhere)}


def test_running_writes_nothing_so_a_read_only_file_system_will_do(image: Image) -> None:
    before = set(files(image.root))
    image.run("config", "schema")
    image.run("check-config")
    assert set(files(image.root)) == before


def test_the_relay_s_own_code_is_compiled_while_it_is_built(image: Image) -> None:
    (cli,) = (image.root / "opt").rglob("consumer/commands/cli.py")
    assert list((cli.parent / "__pycache__").glob("cli.*.pyc"))


# What the Dockerfile says


def test_the_bases_are_arguments_and_pinned() -> None:
    assert [UV.base, BUILD.base, FINAL.base] == ["${UV_IMAGE}", "${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    assert re.search(r"python:3\.\d+\.\d+-slim-\w+$", ARGUMENTS["PYTHON_IMAGE"])


def test_the_base_s_python_is_one_that_the_project_names() -> None:
    version = re.findall(r"python:(3\.\d+)", ARGUMENTS["PYTHON_IMAGE"])
    assert f"Programming Language :: Python :: {version[0]}" in PROJECT["classifiers"]


def test_uv_is_the_one_that_is_locked() -> None:
    locked = re.findall(r"^uv==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert ARGUMENTS["UV_IMAGE"].split(":")[1:] == locked


def test_nothing_is_installed_that_has_no_hash_or_is_no_wheel() -> None:
    runs = BUILD.all("RUN")
    assert FINAL.all("RUN") == []
    for run in runs:
        if "uv pip install" in run and "--no-deps --no-index --find-links /dist engage-relay" not in run:
            assert "--require-hashes --only-binary :all:" in run
        if "uv build" in run:
            assert "--require-hashes --build-constraints requirements-dev.lock" in run
    assert not any(word in run for run in runs for word in ("apt-get", "curl", "wget", "pip install -r"))


def test_it_runs_without_root_and_without_a_shell() -> None:
    (user,) = FINAL.all("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes' runAsNonRoot wants a number"
    entrypoint, command = (json.loads(FINAL.all(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entrypoint == list(PROJECT["scripts"])
    accept(command)


def test_its_health_check_is_the_relays_own_command() -> None:
    (check,) = FINAL.all("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert [program] == list(PROJECT["scripts"])
    assert arguments == ["status", "--check"]
    accept(arguments)


def test_it_exposes_the_port_that_the_relay_listens_on_by_default() -> None:
    listen = Settings.model_validate(
        {
            "kafka": {"bootstrap.servers": "kafka:9092"},
            "engage": {"connections": {"default": {"base_url": "https://acme.voyado.com", "api_key": "key"}}},
        }
    ).admin.listen
    assert FINAL.all("EXPOSE") == [str(listen.port)]


def test_it_writes_no_bytecode_and_buffers_no_log() -> None:
    environment = FINAL.environment()
    assert environment["PYTHONDONTWRITEBYTECODE"] == environment["PYTHONUNBUFFERED"] == "1"


def test_its_labels_are_those_of_the_oci() -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', " ".join(FINAL.all("LABEL"))))
    assert labels.keys() == {"title", "description", "source", "version", "revision", "created"}
    assert labels["title"] == PROJECT["name"]
    assert labels["description"] == PROJECT["description"]


def test_the_build_context_is_what_is_copied_and_nothing_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copies = [text for stage in (BUILD, FINAL) for text in stage.all("COPY") if not text.startswith("--")]
    copied = {source for text in copies for source in text.split()[:-1]}
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
