"""A pod of the chart without Kubernetes: its files in a directory, its variables, and commands run in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.deploy.helm import Manifest, Rendered

COMMAND_TIMEOUT_S = 60.0
ROOT = Path(__file__).parents[2]


class Pod:
    """What `kubectl exec` meets: the container's variables and mounted files, and nothing of this machine's."""

    def __init__(self, root: Path, rendered: Rendered, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """`secrets` are the cluster's: the keys and values of each by its name."""
        self._root = root
        mounts = {each["name"]: str(each["mountPath"]) for each in rendered.container["volumeMounts"]}
        self._mounted = sorted(mounts.values(), key=len, reverse=True)
        for volume in rendered.pod["spec"]["volumes"]:
            if volume["name"] in mounts:
                self._write(mounts[volume["name"]], _files(volume, rendered, secrets))
        self._environment = {
            each["name"]: self._here(each["value"]) for each in rendered.container.get("env", []) if "value" in each
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

    def run(self, arguments: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run an `engage-relay` command as somebody does who is in the pod."""
        return subprocess.run(
            [sys.executable, "-m", "consumer.cli", *arguments],
            cwd=ROOT,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )


def _files(volume: Manifest, rendered: Rendered, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    if "configMap" in volume:
        return dict(rendered.one("ConfigMap", volume["configMap"]["name"])["data"])
    return {
        item["path"]: secrets[source["secret"]["name"]][item["key"]]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
