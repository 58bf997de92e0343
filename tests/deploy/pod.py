"""A pod of the chart without Kubernetes: its files in a directory, its variables, and commands run in it."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.deploy.helm import Manifest, Rendered

COMMAND_TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]


class Pod:
    """What `kubectl exec` meets: the container's variables and mounted files, and nothing of this machine's."""

    def __init__(
        self,
        root: Path,
        rendered: Rendered,
        secrets: Mapping[str, Mapping[str, str]],
        *,
        spec: Manifest | None = None,
        injected: str | None = None,
    ) -> None:
        """Make it. `secrets` are the cluster's: the keys and values of each by its name.

        `spec`: another pod's than the relay's. `injected`: a file that something else puts there, as Vault does.
        """
        self._root = root
        pod = spec or rendered.pod["spec"]
        (container,) = [each for each in pod["containers"] if each.get("command") == ["engage-relay"]]
        self.arguments: list[str] = container["args"]
        mounts = {each["name"]: str(each["mountPath"]) for each in container["volumeMounts"]}
        given = [] if injected is None else [str(Path(injected).parent)]
        self._mounted = sorted([*mounts.values(), *given], key=len, reverse=True)
        if injected is not None:
            self._write(given[0], {Path(injected).name: "injected"})
        for volume in pod["volumes"]:
            if volume["name"] in mounts:
                self._write(mounts[volume["name"]], _files(volume, rendered, secrets))
        self._environment = {
            each["name"]: self._here(each["value"]) for each in container.get("env", []) if "value" in each
        }

    def _write(self, directory: str, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            file = self._root / directory.lstrip("/") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._here(text))

    def _here(self, text: str) -> str:
        for directory in self._mounted:
            text = text.replace(directory, f"{self._root}{directory}")
        return text

    @property
    def config(self) -> Path:
        """The relay's configuration file, where commands look for it."""
        return Path(self._environment["ENGAGE_RELAY_CONFIG"])

    def run(self, arguments: Sequence[str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an `engage-relay` command as somebody does who is in the pod; None: the container's own."""
        mine = [self._here(each) for each in self.arguments] if arguments is None else arguments
        return subprocess.run(
            [sys.executable, "-m", "consumer.cli", *mine],
            cwd=ROOT,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )


class AnySecret(dict[str, dict[str, str]]):
    """A cluster in which every secret is there, with every key."""

    def __missing__(self, name: str) -> dict[str, str]:
        return defaultdict(lambda: f"of-{name}")


def _files(volume: Manifest, rendered: Rendered, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    if "configMap" in volume:
        return dict(rendered.one("ConfigMap", volume["configMap"]["name"])["data"])
    if "projected" not in volume:
        return {}
    return {
        item["path"]: secrets[source["secret"]["name"]][item["key"]]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
