"""What processes of a library leave behind when they are killed."""

import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, sys, time
from multiprocessing import resource_tracker, shared_memory
from iranker_verl.inference.orphans import remove_shared_memory, shared_memory_of

def child(pipe):
    own = shared_memory.SharedMemory(create=True, size=1000)
    pipe.send(own.name)
    time.sleep(100)

if __name__ == "__main__":
    resource_tracker.ensure_running()
    ours = shared_memory.SharedMemory(create=True, size=1000)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    name = here.recv()
    found = shared_memory_of([process.pid, 2**22 + 1])
    process.kill()
    process.join()
    if sys.argv[1] == "remove":
        remove_shared_memory([*found, "psm_not_there"])
    print(found == {name})
    ours.close()
    ours.unlink()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("action", ["keep", "remove"])
def test_shared_memory_of_a_killed_process_is_freed_and_nothing_warns(action):
    done = subprocess.run([sys.executable, "-c", PROGRAM, action], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert ("leaked shared_memory" in done.stderr) == (action == "keep")
