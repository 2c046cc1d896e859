"""Fetch the libraries of the page for a browser again, and hold them against their hashes.

``python scripts/vendor_js.py`` needs npm. For another version change the table below.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).resolve().parents[1] / "src/llenergymeasure/report/page/vendor"


class Package(NamedTuple):
    """One library on the npm registry: its minified build and the SHA-256 of that."""

    name: str
    version: str
    sha256: str


PACKAGES = (
    Package("vega", "5.33.1", "463f3db6a40b20e9747b4ed38f37ed0add508838f9141b1cf8366784b07b30c8"),
    Package(
        "vega-lite", "5.23.0", "58c27358e26f2d319cf62f45bc17a4c8362f08645001df2ec8d341eee4097c7f"
    ),
    Package(
        "vega-embed", "6.29.0", "12d02acfbe3ec59ef9a37dd4822a2e04e2961b5bbb671bbe661d2221715b99da"
    ),
)


def fetch(package: Package, folder: Path) -> bytes:
    """Give the build of a package as the registry has it."""
    command = ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        member = archive.extractfile(f"package/build/{package.name}.min.js")
        assert member is not None
        return member.read()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            content = fetch(package, Path(folder))
            found = hashlib.sha256(content).hexdigest()
            if found != package.sha256:
                raise SystemExit(f"{package.name} {package.version} has the hash {found}")
            (VENDOR / f"{package.name}.min.js").write_bytes(content)


if __name__ == "__main__":
    main()
