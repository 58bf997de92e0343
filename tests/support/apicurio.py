"""A real Schema Registry: Apicurio's, from Maven Central. It needs Java 17, as the tests' broker does."""

from __future__ import annotations

import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Self

from tests.support.archives import unpack
from tests.support.downloads import UnavailableError, kept, last_line, said

VERSION = "2.6.13.Final"  # version 3 needs Java 21
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
START_S = 90.0


class Apicurio:
    """A registry in memory, with the API of Confluent's at `url`."""

    def __init__(self) -> None:
        self._files = kept(f"apicurio-{VERSION}", _fetch)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (jar,) = self._files.glob("*runner.jar")
        options = [f"-Dquarkus.http.port={self._port}", "-Dquarkus.http.host=127.0.0.1", "-Xmx400m"]
        self._process = subprocess.Popen(
            ["java", *options, "-jar", str(jar)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up_at = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > give_up_at or self._process.poll() is not None:
                self.__exit__()
                raise UnavailableError("the registry did not start")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=1) as answer:
                return int(answer.status) == 200
        except OSError:
            return False


def _fetch(folder: Path) -> Path:
    get = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"]
    try:
        code, words = said(get, cwd=Path(tempfile.gettempdir()), timeout_s=300)
    except OSError as error:
        raise UnavailableError(f"mvn: {error.strerror}") from error
    if code:
        raise UnavailableError(last_line(words))
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        unpack(archive, folder / "files")
    return folder / "files"
