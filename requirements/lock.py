"""Write the hashes of a stack's files into its lock: ``python3.11 requirements/lock.py cpu``.

Versions are chosen by hand (``name==version`` in the lock); this asks pip which file it would take for each on this
machine and adds the file's SHA-256. Hashes that are there are kept, so run it once with each Python version of the stack.
The file of ``torch==…+cpu`` is in PyTorch's own index: point ``PIP_EXTRA_INDEX_URL`` there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
PIN = re.compile(r"^[A-Za-z0-9][\w.-]*==\S+")


def hashes(pins: list[str]) -> dict[str, str]:
    """Return the SHA-256 of the file that pip takes for each ``name==version``, by that text."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        wanted = Path(folder, "wanted.txt")
        wanted.write_text("\n".join(pins))
        command = (sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed")
        subprocess.run([*command, "--report", str(report), "-r", str(wanted)], check=True)
        found = json.loads(report.read_text())["install"]
    by_name = {
        _name(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"]["sha256"] for one in found
    }
    return {pin: by_name[_name(pin.split("==")[0])] for pin in pins}


def _name(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def main(stack: str) -> None:
    """Rewrite ``STACK.txt`` and ``verl.txt``."""
    files = {path: path.read_text().splitlines() for path in (FOLDER / "verl.txt", FOLDER / f"{stack}.txt")}
    pins = [m[0] for lines in files.values() for line in lines if (m := PIN.match(line))]
    new = hashes(pins)
    for path, lines in files.items():
        for i, line in enumerate(lines):
            if (m := PIN.match(line)) and m[0] in new:
                known = {*re.findall(r"--hash=sha256:(\w+)", line), new[m[0]]}
                lines[i] = " ".join([m[0], *(f"--hash=sha256:{one}" for one in sorted(known))])
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
