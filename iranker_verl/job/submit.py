"""Submit a recipe to a running Ray head and follow its log: what ``recipes/cluster/submit.sh`` calls.

The job is made by Ray's Python API, so that overrides arrive as they were given, whatever characters they hold. What travels is
the code and the recipes, with the metadata that names our plug-ins of verl and vLLM (their entry points), so that a cluster on
which only verl is installed finds them as well; nothing of runs, data or models, and of the environment only what says where
and how to run: Ray's dashboard shows a job's environment and command to everybody.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from iranker_verl.errors import UserError, first_line

ROOT = Path(__file__).parents[2]
TRAVELS = ("iranker_verl", "data_prep", "reward_fns", "recipes", "requirements/verl.txt", "setup.py")
# Of the submitter's environment.
PASSED = ("VERL_PLATFORM", "OMP_NUM_THREADS", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TENSORBOARD_DIR")
TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # Ray 2.60 makes one at its first start, and the next head asks for it
# A user, a password or a key in a URL.
_CREDENTIALS = re.compile(
    r"://[^/\s]*@|://\S*[?&](?:\w*token|\w*key|password|passwd|secret|sig|signature)=", re.IGNORECASE
)
# The cluster has its own processors, so the recipe may not ask Ray for any. A user's own values come later and win.
_JOINS = (
    "ray_kwargs.ray_init.num_cpus=null",
    "++ray_kwargs.ray_init.num_gpus=null",
    "++ray_kwargs.ray_init.address=null",
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
AGAIN_S = 2.0  # until a job that has not ended is followed again
PATIENCE_S = 120.0  # with a head that cannot be reached
USAGE = "submit.sh RECIPE iranker.run_dir=/shared/folder [--dry-run] [override=value …]"


@dataclass(frozen=True)
class Submission:
    """A checked command line: the head's address, the recipe's file, the run folder and the overrides."""

    address: str
    recipe: Path
    run: str
    overrides: tuple[str, ...]
    dry_run: bool

    def command(self) -> str:
        """Return the job's command for the shell that Ray hands it to."""
        recipe = self.recipe.relative_to(ROOT) if self.recipe.is_relative_to(ROOT / "recipes") else self._own()
        start = [os.environ.get("PYTHON") or "python", "-m", "iranker_verl.cli", "train", str(recipe)]
        return shlex.join([*start, *_JOINS, f"iranker.base.cache={self.run}/cache", *self.overrides])

    def _own(self) -> Path:
        """Return the path of a recipe from elsewhere in the bundle: beside ours, on which it can build."""
        return Path("recipes", "own", self.recipe.name)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the job."""
        fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TENSORBOARD_DIR": f"{self.run}/tensorboard"}
        return fixed | {name: os.environ[name] for name in PASSED if name in os.environ}

    def bundle(self, folder: Path) -> None:
        """Put into ``folder`` what travels."""
        for name in TRAVELS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        if not self.recipe.is_relative_to(ROOT / "recipes"):
            own = folder / self._own().parent
            own.mkdir()
            for file in self.recipe.parent.glob("*.yaml"):
                shutil.copy(file, own)
        made = subprocess.run(
            [sys.executable, "setup.py", "-q", "egg_info"], cwd=folder, capture_output=True, check=False
        )
        if made.returncode:
            raise UserError(f"setup.py egg_info failed; setuptools is missing, or {ROOT} is not whole")


def parse(arguments: Sequence[str]) -> Submission:
    """Return what the command line and ``RAY_ADDRESS`` ask for. Raise UserError."""
    options = [one for one in arguments if one.startswith("-")]
    if unknown := [one for one in options if one != "--dry-run"]:
        raise UserError(f"{unknown[0]}: unknown option; there is only --dry-run")
    named = [one for one in arguments if one not in options]
    if not named:
        raise UserError(f"which recipe? {USAGE}")
    recipe, overrides = Path(named[0]), tuple(named[1:])
    recipe = (recipe / f"{recipe.resolve().name}.yaml" if recipe.is_dir() else recipe).resolve()
    if not recipe.is_file():
        raise UserError(f"{recipe}: no such recipe; give a folder of recipes/ or a YAML file")
    run = next((one.partition("=")[2] for one in reversed(overrides) if one.startswith("iranker.run_dir=")), "")
    if not run.startswith("/"):
        raise UserError(
            f"iranker.run_dir={run or '…'} has to be an absolute folder that all nodes share; Ray removes the one that a job "
            "starts in"
        )
    return Submission(_address(overrides), recipe, run, overrides, bool(options))


def _address(overrides: Sequence[str]) -> str:
    address = os.environ.get("RAY_ADDRESS", "")
    if not address:
        raise UserError("RAY_ADDRESS is not set; give the head's address, e.g. RAY_ADDRESS=http://head:8265")
    if not re.match(r"https?://[^/]", address):
        raise UserError(f"RAY_ADDRESS={address} is no dashboard's address; it has the form http://head:8265")
    given = {"RAY_ADDRESS": address, **{name: os.environ.get(name, "") for name in PASSED}}
    given |= {override.partition("=")[0]: override for override in overrides}
    for name, value in given.items():
        if _CREDENTIALS.search(value):
            raise UserError(
                f"{name} holds a user, password or key in a URL, and Ray's dashboard shows a job's environment and command; "
                "set it on the nodes"
            )
    return address


def send_token_if_any() -> None:
    """Make Ray's client send this machine's token, unless ``RAY_AUTH_MODE`` says otherwise; a head without one ignores it."""
    named = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if named or TOKEN_FILE.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _check_listens(address: str) -> None:
    """Raise UserError where nothing listens: Ray itself would try for minutes."""
    url = urlsplit(address)
    try:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        socket.create_connection((url.hostname or "", port), 20).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{address}: nothing listens there; is the head up (ray start --head), and can its dashboard be reached from here?"
        ) from error


def submit(asked: Submission) -> int:
    """Submit and follow the log to its end. Return 0 only where the job succeeded; raise UserError where it did not."""
    send_token_if_any()
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise UserError("ray is not installed here; run make setup") from error
    job = {
        "submission_id": f"iranker-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
        "entrypoint": asked.command(),
        "runtime_env": {"env_vars": asked.environment(), "excludes": ["**/__pycache__"]},
    }
    if asked.dry_run:
        print(json.dumps({"address": asked.address, **job}, indent=2, ensure_ascii=False))
        return 0
    _check_listens(asked.address)
    name = job["submission_id"]
    try:
        client = JobSubmissionClient(asked.address)
        with tempfile.TemporaryDirectory() as folder:
            asked.bundle(Path(folder))
            client.submit_job(**(job | {"runtime_env": {**job["runtime_env"], "working_dir": folder}}))  # type: ignore[arg-type,dict-item]
        print(f"{name} is submitted", flush=True)
        ended = asyncio.run(_follow(client, str(name)))
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{name}: {first_line(error)} (ray job logs -f --address {asked.address} {name})") from error
    if ended.status != "SUCCEEDED":
        reason = first_line(ValueError(ended.message)) if ended.message else ""
        raise UserError(
            f"{name} has not succeeded: {ended.status.value} {reason} (ray job logs -f --address {asked.address} {name})"
        )
    print(f"{name} succeeded")
    return 0


async def _follow(client: Any, name: str) -> Any:
    """Print the log as it comes, and return Ray's description of the job when it has ended.

    Where the connection is lost before, it is made again, and the log continues after what was printed. Raise RuntimeError where
    the head cannot be reached for :data:`PATIENCE_S`.
    """
    from aiohttp import ClientError

    printed, lost, reason = 0, None, ""
    while lost is None or time.monotonic() - lost < PATIENCE_S:
        try:
            read = 0  # Ray sends a log from its beginning
            async for lines in client.tail_job_logs(name):
                print(lines[max(0, printed - read) :], end="", flush=True)
                read += len(lines)
                printed = max(printed, read)
            found = client.get_job_info(name)
            if found.status in ENDED:
                return found
            lost = None
        except (RuntimeError, OSError, ClientError) as error:
            lost, reason = lost or time.monotonic(), first_line(error)
        await asyncio.sleep(AGAIN_S)
    raise RuntimeError(f"its head cannot be reached any more ({reason}); the job may go on")


def main() -> None:
    """Run ``python -m iranker_verl.job.submit``."""
    try:
        sys.exit(submit(parse(sys.argv[1:])))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nthe job continues; `ray job stop` ends it", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
