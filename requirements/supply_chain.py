"""Write what a stack is made of: ``python requirements/supply_chain.py VENV STACK OUT``.

``sbom.cdx.json``      a software bill of materials (CycloneDX) of what is installed, by cyclonedx-bom
``licences.csv``       a line a package, by pip-licenses
``vulnerabilities.json``  what is known of the locked versions, by pip-audit

The tools are of ``audit.txt``, which has their hashes, in a virtual environment that is removed afterwards. Exits with 1 where
a locked version is known to be vulnerable. Where the package index or its list of vulnerabilities cannot be reached, a line
says what was not checked.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LIST_S = 300  # seconds for the list of vulnerabilities
COPYLEFT = re.compile(r"\b(?:[AL]?GPL|MPL|EPL|CDDL)|General Public|Mozilla")


def about_licences(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a line: how many packages, and which have a licence that asks for its source, or name none."""
    licence = {row["Name"]: row["License"].strip().partition("\n")[0] for row in rows}  # some give the whole text

    def named(found: Callable[[str], object]) -> str:
        return ", ".join(f"{name} ({text})" for name, text in licence.items() if found(text)) or "none"

    unknown = named(lambda text: text == "UNKNOWN")
    return f"licences: {len(rows)} packages; copyleft: {named(COPYLEFT.search)}; unknown: {unknown}"


def about_vulnerabilities(found: Mapping[str, Any]) -> tuple[str, bool]:
    """Return lines on pip-audit's findings, and whether there is a vulnerability."""
    packages = found["dependencies"]
    asked = [one for one in packages if "skip_reason" not in one]
    lines = [
        f"{one['name']} {one['version']}: {bug['id']}, mended in {', '.join(bug['fix_versions']) or 'no version yet'}"
        for one in asked
        for bug in one["vulns"]
    ]
    if not asked:
        return "vulnerabilities: not checked, as the list of them cannot be reached from here", False
    unknown = f", {len(packages) - len(asked)} are not in the list" if len(asked) < len(packages) else ""
    return "\n".join([f"vulnerabilities: {len(lines)} in {len(asked)} packages{unknown}", *lines]), bool(lines)


def main(venv: Path, stack: str, out: Path) -> int:
    """Write the three files into ``out``, and print what they say."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tools, lock = Path(folder, "tools"), Path(folder, "lock.txt")
        subprocess.run([sys.executable, "-m", "venv", tools], check=True)
        pip = [tools / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        made = subprocess.run([*pip, "--require-hashes", "-r", FOLDER / "audit.txt"], capture_output=True, text=True)
        if made.returncode:
            why = (made.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(f"supply chain: not checked, as its tools cannot be installed ({why})")
            return 0
        python = venv / "bin" / "python"
        sbom, licences, bugs = (out / name for name in ("sbom.cdx.json", "licences.csv", "vulnerabilities.json"))
        run = [tools / "bin" / "cyclonedx-py", "environment", "--output-reproducible", "--of", "JSON", "-o", sbom]
        subprocess.run([*run, python], check=True)
        run = [tools / "bin" / "pip-licenses", f"--python={python}", "--from=mixed", "--format=csv"]
        subprocess.run([*run, f"--output-file={licences}"], check=True, stdout=subprocess.DEVNULL)
        locks = "".join((FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in ("verl", stack))
        lock.write_text("\n".join(line for line in locks.splitlines() if "--hash=" in line), encoding="utf-8")
        run = [tools / "bin" / "pip-audit", "--disable-pip", "--no-deps", "--format=json", "-r", lock]
        try:
            found = subprocess.run(run, capture_output=True, text=True, timeout=LIST_S).stdout
        except subprocess.TimeoutExpired:
            found = ""
    with licences.open(newline="", encoding="utf-8") as file:
        print(about_licences(list(csv.DictReader(file))))
    print(f"bill of materials: {len(json.loads(sbom.read_text(encoding='utf-8'))['components'])} components in {sbom}")
    if not found.startswith("{"):
        print("vulnerabilities: not checked, as the list of them cannot be reached from here")
        return 0
    bugs.write_text(found, encoding="utf-8")
    lines, vulnerable = about_vulnerabilities(json.loads(found))
    print(lines)
    return int(vulnerable)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))
