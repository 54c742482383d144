"""`iranker serve`: what is refused or said before a model is loaded."""

import socket

import pytest

from tests.command import iranker

pytest.importorskip("openai")

from iranker_verl.serving.server import Server


@pytest.fixture
def serve(monkeypatch, capsys):
    """Run the verb; a server that would start says so instead."""
    monkeypatch.delenv("IRANKER_API_KEY", raising=False)
    monkeypatch.setattr(Server, "run", lambda self, sockets: print("started", *sockets[0].getsockname()[:1]))
    model = ("--model", "fake", "--endpoint", "http://127.0.0.1:9/v1")
    return lambda *arguments: iranker(monkeypatch, capsys, "serve", *model, "--port", "0", *arguments)


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_an_empty_key_is_refused(serve, monkeypatch, key):
    monkeypatch.setenv("IRANKER_API_KEY", key)
    code, out, err = serve()
    assert code == 2 and "started" not in out and "IRANKER_API_KEY is empty" in err


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_host_that_others_reach_without_a_key_is_warned_of_in_one_line(serve, monkeypatch, host, warns, key):
    if key:
        monkeypatch.setenv("IRANKER_API_KEY", key)
    code, out, err = serve("--host", host)
    assert code == 0 and "started" in out
    assert ("open to other machines" in err) == (warns and not key) and len(err.splitlines()) <= 1


def test_a_port_in_use_is_found_before_the_model_is_looked_at(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = iranker(monkeypatch, capsys, "serve", "--model", "no/such-model", "--port", port)
    assert code == 2 and f"127.0.0.1:{port}: cannot listen there" in err and "no/such-model" not in err
    assert len(err.splitlines()) == 1


def test_a_host_of_another_machine_is_one_line(serve):
    code, _, err = serve("--host", "203.0.113.7")
    assert code == 2 and "203.0.113.7" in err and len(err.splitlines()) == 1


def test_the_former_name_of_an_option_works_and_tells_the_new_one(serve):
    code, out, err = serve("--places", 7)
    assert code == 0 and "started" in out and "--max-concurrent-requests" in err
