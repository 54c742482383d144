"""``python -m iranker_verl.job.subreaper COMMAND …``: runs a command and lets none of its descendants outlive it.

Ray and vLLM start daemons that leave their parent's session, so ending a process group does not end them. The guard makes
itself the "child subreaper" (Linux ``prctl(2)``): whatever is orphaned below it becomes its own child and can be found.
It ends everything when the command ends, on SIGTERM, and when its standard input closes, which is how it notices that its
own parent was killed. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from iranker_verl.processes import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl

GRACE_S = 5.0


def descendants(root: int) -> list[int]:
    """Process ids below ``root``, from /proc; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # "pid (name) state ppid …": the name may hold spaces and brackets
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def end_descendants() -> None:
    """End every process below this one: politely, then after a grace period by force; until none is left."""
    for sign, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
        deadline = time.monotonic() + seconds
        while (left := descendants(os.getpid())) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, sign)
            _reap()
            time.sleep(0.1)
    _reap()  # in a container nobody else may do it


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def main() -> None:
    """Run the command of the arguments, and leave no process of it behind."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the job, which then ends us
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def parent_watch() -> None:
        sys.stdin.buffer.read()
        stop.set()

    threading.Thread(target=parent_watch, daemon=True).start()
    command = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    )
    while command.poll() is None and not stop.wait(0.1):
        pass
    code = command.poll()
    end_descendants()
    # The interpreter's own shutdown would wait for the thread that reads standard input.
    os._exit(code if code is not None and code >= 0 else 130 if code is None else 128 - code)


if __name__ == "__main__":
    main()
