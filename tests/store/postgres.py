"""A PostgreSQL server of our own for a few tests, on a socket file, without a port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.need import need


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


class Postgres:
    """Started when made; `url` is its SQLAlchemy URL."""

    def __init__(self) -> None:
        binaries = _binaries()
        need("PostgreSQL", "apt-get install postgresql", binaries is not None)
        assert binaries is not None
        self._folder = Path(tempfile.mkdtemp(prefix="extenbot-pg-"))
        data = self._folder / "data"
        # The server refuses to run as root.
        owner = "postgres" if os.getuid() == 0 else None
        if owner:
            shutil.chown(self._folder, "postgres", "postgres")
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "extenbot", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=self._folder,
            user=owner,
            group=owner,
        )
        self._server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", self._folder, "-c", "listen_addresses=", "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            user=owner,
            group=owner,
        )
        self.url = f"postgresql://extenbot@/postgres?host={self._folder}"
        until = time.monotonic() + 20
        while not (self._folder / ".s.PGSQL.5432").exists() and time.monotonic() < until:
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)
