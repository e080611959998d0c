"""Where an embedded server keeps what it has: one private folder, the same for every process that names its path."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from queue_backends.errors import BackendMisconfigured

MAX_SOCKET_PATH_BYTES = 100
"""`sun_path` holds 108 bytes on Linux and 104 on macOS, the closing zero included (unix(7), unix(4))."""


class ServerFolder(Struct, frozen=True):
    """The files of one embedded server. All are readable by their owner alone."""

    path: Path
    """Absolute, links resolved, so that every process means the same place."""

    @classmethod
    def prepare(cls, data_dir: Path) -> ServerFolder:
        """Create the server's folder inside `data_dir`, and the socket's when it must be elsewhere.

        Raises `BackendMisconfigured` if that is not possible or would not be private.
        """
        try:
            path = Path(os.path.realpath(data_dir)) / "valkey"
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as error:
            raise BackendMisconfigured(
                f"cannot keep the embedded queue in {data_dir}: {error.strerror or error}: "
                "set SHOAL_DATA_DIR to a folder that you can write to"
            ) from error
        folder = cls(path)
        if folder.socket.parent != path:
            _make_private(folder.socket.parent)
        return folder

    @property
    def socket(self) -> Path:
        """The server's Unix socket: in the folder itself, or in a short place if that path were too long for one.

        The short place depends on nothing but the user and the folder: variables such as XDG_RUNTIME_DIR or TMPDIR
        differ between processes that must find the same server.
        """
        near = self.path / "valkey.sock"
        if len(os.fsencode(near)) <= MAX_SOCKET_PATH_BYTES:
            return near
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path("/tmp") / f"shoal-{os.getuid()}" / f"{digest}.sock"  # noqa: S108 - checked by _make_private

    @property
    def users_lock(self) -> Path:
        """Locked shared by every user as long as it lives; exclusively by the supervisor while it ends the server."""
        return self.path / "users.lock"

    @property
    def server_lock(self) -> Path:
        """Locked exclusively as long as the server or its supervisor lives."""
        return self.path / "server.lock"

    @property
    def alive_fifo(self) -> Path:
        """Has a writer as long as the supervisor lives, so that its readers learn of its death."""
        return self.path / "alive.fifo"

    @property
    def log(self) -> Path:
        """What the server and its supervisor have to say."""
        return self.path / "valkey.log"


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """$SHOAL_DATA_DIR, else $XDG_DATA_HOME/shoal, else ~/.local/share/shoal."""
    if chosen := environ.get("SHOAL_DATA_DIR"):
        return Path(chosen).expanduser()
    base = environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "shoal"


def _make_private(folder: Path) -> None:
    """Create `folder`, or accept it only if it is ours alone: others may write beside it and could have made it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BackendMisconfigured(
            f"cannot create {folder} for the embedded queue's socket: {error.strerror}: choose a shorter SHOAL_DATA_DIR"
        ) from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise BackendMisconfigured(
            f"{folder} is not a private folder of this user: remove it, or choose a shorter SHOAL_DATA_DIR"
        )
