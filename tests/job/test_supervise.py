"""A stage in a process of its own: what a person sees, what the log keeps, and how failures read."""

import os
import re
import signal
import sys
import threading
import time

import pytest

from iranker_verl.console import say
from iranker_verl.errors import UserError
from iranker_verl.job import supervise
from iranker_verl.job.supervise import StageFailed, memory_below, run


def stage(code, log, name="prepare", env=None):
    return run(name, [sys.executable, "-u", "-c", code], log, hint=lambda: "Run it again", env=env)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "stage.log"


def failure(code, log):
    with pytest.raises(StageFailed) as error:
        stage(code, log)
    assert isinstance(error.value, UserError)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_progress_goes_to_the_console_and_everything_to_the_log(log, capsys):
    finished = stage(
        "import sys\nfrom iranker_verl.console import say\nsay('12 of 40')\nprint('chatter')\n"
        "print('\\x1b[36m(TaskRunner pid=7)\\x1b[0m iranker| step 1/2')\nprint('warn', file=sys.stderr)\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe\\n')",
        log,
    )
    assert capsys.readouterr().out.splitlines() == ["  prepare  12 of 40", "  prepare  step 1/2"]
    content = log.read_bytes()
    assert content.startswith(b"==== prepare: ")
    for line in (b"iranker| 12 of 40\n", b"chatter\n", b"warn\n", b"\xff\xfe\n"):
        assert line in content
    assert 0 < finished.seconds < 60


def test_what_two_nodes_tell_of_one_worker_is_shown_once(log, capsys):
    lines = [
        "(W pid=7) iranker| step 1",
        "(W pid=7) iranker| step 2",
        "(W pid=7) iranker| step 1",
        "iranker| a",
        "iranker| a",
    ]
    stage(f"print({chr(10).join(lines)!r})", log)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "prepare  " + w for w in ("step 1", "step 2", "a", "a")
    ]
    assert log.read_text().count("step 1") == 2


def test_the_log_of_an_earlier_attempt_is_kept(log):
    stage("print('first')", log)
    stage("print('second')", log)
    text = log.read_text()
    assert text.index("first") < text.index("second") and text.count("==== prepare") == 2


def test_say(capsys):
    say("hello")
    assert capsys.readouterr().out == "iranker| hello\n"


def test_a_silent_stage_shows_that_it_is_alive(log, capsys, monkeypatch):
    monkeypatch.setattr(supervise, "HEARTBEAT_S", 0.5)
    stage("import time\nfor _ in range(30): print('not for a person'); time.sleep(0.1)", log)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(re.fullmatch(r"  prepare  … \d+ s", line) for line in lines)


def test_a_stage_that_speaks_has_no_heartbeat(log, capsys, monkeypatch):
    monkeypatch.setattr(supervise, "HEARTBEAT_S", 2.0)
    stage("import time\nfor i in range(8): print('iranker| ' + str(i)); time.sleep(0.4)", log)
    assert capsys.readouterr().out.splitlines() == [f"  prepare  {i}" for i in range(8)]


def test_memory_is_measured_whether_a_stage_speaks_or_not(log, monkeypatch):
    monkeypatch.setattr(supervise, "MEMORY_S", 0.2)
    megabytes = 120
    code = f"import time\nblock = b'x' * ({megabytes} << 20)\nfor i in range(20): print('iranker| ' + str(i)); time.sleep(0.1)"
    assert stage(code, log).peak_rss_bytes > megabytes << 20


def test_memory_counts_all_processes_below():
    assert memory_below(os.getpid()) > 1 << 20
    assert memory_below(2**22 + 1) == 0  # no such process


# ---------------------------------------------------------------- failures


def test_a_users_error_is_shown_as_it_is(log, capsys):
    message = failure("import sys; print('chatter'); sys.exit('error: data.csv row 3: effect is x')", log)
    assert message == "data.csv row 3: effect is x"
    assert capsys.readouterr().out == ""


def test_an_error_line_of_a_stage_that_ends_well_is_none(log):
    stage("print('error: only talk'); print('ValueError: caught')", log)


def test_an_exception_is_named_with_its_log_and_the_way_on(log):
    message = failure("raise ValueError('bad weather')", log)
    assert message == f"prepare stopped: ValueError: bad weather (log: {log}). Run it again"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["ValueError: a", "KeyError: 'b'"], "KeyError: 'b'"),
        (["torch.OutOfMemoryError: 3 GiB"], "torch.OutOfMemoryError: 3 GiB"),
        (["(WorkerDict pid=12) RuntimeError: rank 1"], "RuntimeError: rank 1"),
        (["(WorkerDict pid=12, ip=10.0.0.3) RuntimeError: rank 1"], "RuntimeError: rank 1"),
        (["\x1b[36m(TaskRunner pid=12)\x1b[0m RuntimeError: rank 2"], "RuntimeError: rank 2"),
        (["RuntimeError: cause", "ray.exceptions.RayTaskError: wrapper"], "RuntimeError: cause"),
        (["RuntimeError: cause", "ray.exceptions.RayTaskError(RuntimeError): ray::f()"], "RuntimeError: cause"),
        (["RuntimeError: cause", "subprocess.CalledProcessError: Command"], "RuntimeError: cause"),
        (["an Errorless line", "Errors: 3"], "its process ended with code 3"),
        ([], "its process ended with code 3"),
    ],
)
def test_the_reason_is_the_last_error_that_says_something(log, lines, reason):
    message = failure(f"import sys\nfor line in {lines!r}: print(line)\nsys.exit(3)", log)
    assert message == f"prepare stopped: {reason} (log: {log}). Run it again"


# What a stage prints when it dies, and the one line that is made of it. Whole: a sentence for the user. Part: the cause.
USER = "iranker_verl.errors.UserError: prompt 3 is too long; raise it"
WAYS_TO_DIE = {
    "a user's mistake": (
        "import sys; sys.exit('error: prompt 3 is too long; raise it')",
        "prompt 3 is too long; raise it",
    ),
    "a user's mistake in a worker": (
        f"print('(TaskRunner pid=7, ip=10.0.0.2) {USER}'); 1/0",
        "prompt 3 is too long; raise it",
    ),
    "a user's mistake in an agent loop, then others": (
        f"print('(W pid=7) {USER}'); print('RuntimeError: the batch is empty'); raise SystemExit(1)",
        "prompt 3 is too long; raise it",
    ),
    "an exception": ("raise ValueError('bad weather')", "prepare stopped: ValueError: bad weather (log: "),
    "an exception without a message": ("assert False", "prepare stopped: AssertionError (log: "),
    "an exception in a worker": (
        "print('ray.exceptions.RayTaskError(KeyError): ray::f()'); print('(W pid=1) KeyError: 3'); raise SystemExit(1)",
        "prepare stopped: KeyError: 3 (log: ",
    ),
    "an actor that died": (
        "print('ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.')\n"
        "print('causes: (1) the process was killed by SIGKILL by OOM killer'); raise SystemExit(1)",
        "prepare stopped: a process of Ray's was killed, mostly because memory ran out (log: ",
    ),
    "an engine that died of something": (
        "print('(EngineCore pid=3) RuntimeError: no room for the cache'); print('vllm.EngineDeadError: see above'); raise SystemExit(1)",
        "prepare stopped: RuntimeError: no room for the cache (log: ",
    ),
    "kill -9, as the kernel does without memory": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "prepare stopped: its process was killed (signal 9), mostly because memory ran out (log: ",
    ),
    "a crash in C": ("import ctypes; ctypes.string_at(0)", "prepare stopped: its process was ended by signal 11 ("),
    "an exit code alone": ("import os; os._exit(7)", "prepare stopped: its process ended with code 7 (log: "),
    "an exception of another name": (
        "print('died of Empty: nothing came'); raise SystemExit(1)",
        "prepare stopped: Empty: nothing came (log: ",
    ),
    "memory of Ray's": (
        "print('ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.'); raise SystemExit(1)",
        "prepare stopped: ray.exceptions.OutOfMemoryError: Task was killed due to the node",
    ),
}


@pytest.mark.parametrize("way", WAYS_TO_DIE)
def test_whatever_a_stage_dies_of_is_its_message(log, way):
    code, words = WAYS_TO_DIE[way]
    message = failure(code, log)
    assert message.startswith(words) if words.endswith((" ", "(", "node")) else message == words


@pytest.mark.parametrize(
    ("code", "crashed"),
    [
        ("import sys; sys.exit('error: prompt 3 is too long')", False),
        (f"print('(TaskRunner pid=7) {USER}'); 1/0", False),
        *(  # under nohup, SIGHUP is ignored, and that is inherited
            (f"import os, signal as s; s.signal(s.{name}, s.SIG_DFL); os.kill(os.getpid(), s.{name})", False)
            for name in ("SIGTERM", "SIGHUP")
        ),
        *((f"import os, signal; os.kill(os.getpid(), signal.{name})", True) for name in ("SIGKILL", "SIGSEGV")),
        ("1/0", True),
        ("import os; os._exit(7)", True),
    ],
)
def test_only_after_a_crash_may_the_same_command_end_otherwise(log, code, crashed):
    with pytest.raises(StageFailed) as error:
        stage(code, log)
    assert error.value.crashed is crashed


def test_a_very_long_error_is_cut(log):
    assert len(failure("raise ValueError('x' * 100000)", log)) < 1000


def test_a_daemon_that_holds_the_output_open_does_not_hang_the_job(log):
    code = "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True)"
    start = time.monotonic()
    stage(code, log)
    assert time.monotonic() - start < 30


def test_a_stages_environment(log, capsys):
    stage("import os; print('iranker| ' + os.environ['COLOUR'])", log, env=os.environ | {"COLOUR": "green"})
    assert capsys.readouterr().out == "  prepare  green\n"


def test_ctrl_c_ends_the_stage_and_passes_on(log, tmp_path):
    note = tmp_path / "pid"
    code = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"

    def interrupt():
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        stage(code, log)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
