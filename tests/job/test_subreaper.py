"""Nothing that a job starts outlives it, whichever way the job ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iranker_verl.job.subreaper import descendants

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's child subreaper")

# Leaves its parent's session and its parent, as Ray's and vLLM's daemons do, then writes its id and sleeps.
DAEMON = """
import os, signal, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
part = sys.argv[1] + ".part"
with open(part, "w") as file: file.write(str(os.getpid()))
os.rename(part, sys.argv[1])
time.sleep(300)
"""
# Starts the daemon, waits until it is there, then does ``end``.
COMMAND = """
import os, subprocess, sys, time
subprocess.run([sys.executable, "-c", {daemon!r}, {note!r}, *{options!r}])
while not os.path.exists({note!r}): time.sleep(0.02)
print("ready", flush=True)
{end}
"""


def wait(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def guarded(tmp_path):
    """Start the guard over a command that daemonises; whatever is left is ended after the test."""
    pids = []

    def start(end, *options, **popen):
        note = tmp_path / "pid"
        command = [sys.executable, "-c", COMMAND.format(daemon=DAEMON, note=str(note), options=options, end=end)]
        arguments = [sys.executable, "-m", "iranker_verl.job.subreaper", *command]
        guard = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, **popen)
        pids.append(guard.pid)
        assert wait(note.exists), "the daemon did not start"
        daemon = int(note.read_text())
        pids.append(daemon)
        return guard, daemon

    yield start
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 128 + 9)]
)
def test_the_commands_code_passes_through_and_its_daemon_goes_with_it(guarded, end, code):
    guard, daemon = guarded(end)
    assert guard.wait(timeout=30) == code
    assert not alive(daemon)


def test_a_daemon_that_is_deaf_to_sigterm_is_killed(guarded):
    guard, daemon = guarded("sys.exit(3)", "deaf")
    assert guard.wait(timeout=30) == 3
    assert not alive(daemon)


def test_all_ends_when_standard_input_closes(guarded):
    guard, daemon = guarded("time.sleep(300)")
    assert alive(daemon) and guard.poll() is None
    guard.stdin.close()
    assert guard.wait(timeout=30) == 130
    assert not alive(daemon)


def test_all_ends_on_sigterm(guarded):
    guard, daemon = guarded("time.sleep(300)")
    command = next(p for p in descendants(guard.pid) if p != daemon)
    guard.terminate()
    assert guard.wait(timeout=30) == 130
    assert not alive(daemon) and not alive(command)


def test_a_ctrl_c_in_the_terminal_is_for_the_job(guarded):
    guard, daemon = guarded("time.sleep(300)")
    guard.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert guard.poll() is None and alive(daemon)
    guard.terminate()
    guard.wait(timeout=30)


PARENT = """
import subprocess, sys, time
guard = subprocess.Popen([sys.executable, "-m", "iranker_verl.job.subreaper", *sys.argv[1:]], stdin=subprocess.PIPE)
print(guard.pid, flush=True)
time.sleep(300)
"""


def test_all_ends_when_the_guards_parent_is_killed(tmp_path):
    note = tmp_path / "pid"
    command = [
        sys.executable,
        "-c",
        COMMAND.format(daemon=DAEMON, note=str(note), options=(), end="time.sleep(300)"),
    ]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True)
    guard = int(parent.stdout.readline())
    try:
        assert wait(note.exists)
        daemon = int(note.read_text())
        assert alive(guard) and alive(daemon)
        parent.kill()
        parent.wait(timeout=30)
        assert wait(lambda: not alive(daemon) and not alive(guard)), "something outlived the job"
    finally:
        for pid in (parent.pid, guard):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_the_command_ends_with_a_guard_that_is_killed(guarded):
    guard, daemon = guarded("time.sleep(300)")
    command = next(p for p in descendants(guard.pid) if p != daemon)
    guard.kill()
    guard.wait(timeout=30)
    assert wait(lambda: not alive(command))


def test_what_the_command_prints_goes_where_the_guards_output_goes():
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); print(sys.stdin.read())"]
    done = subprocess.run(
        [sys.executable, "-m", "iranker_verl.job.subreaper", *command],
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=30,
    )
    # subprocess.run closes standard input at once, so the command may be stopped before it prints
    assert done.returncode in (0, 130)
    with subprocess.Popen(
        [sys.executable, "-m", "iranker_verl.job.subreaper", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as guard:
        assert guard.stdout.read() == "out\n\n"
        assert guard.stderr.read() == "err\n"
        assert guard.wait(timeout=30) == 0


def test_descendants_are_found_at_any_depth_and_under_any_name(tmp_path):
    script = (
        "import os, subprocess, sys, time\nif sys.argv[1:]: subprocess.Popen([sys.executable, '-c', sys.argv[1]])\n"
    )
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    child = subprocess.Popen([sys.executable, "-c", script + f"subprocess.Popen([{str(odd)!r}, '30']); time.sleep(30)"])
    try:
        found = wait(lambda: (d := descendants(child.pid)) and len(d) == 1 and d)
        assert found
        assert child.pid in descendants(os.getpid()) and found[0] in descendants(os.getpid())
        assert os.getpid() not in descendants(os.getpid())
    finally:
        for pid in descendants(child.pid):
            os.kill(pid, signal.SIGKILL)
        child.kill()
        child.wait()
    assert wait(lambda: child.pid not in descendants(os.getpid()))
