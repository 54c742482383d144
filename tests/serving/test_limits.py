"""Hostile and unlucky clients: what one of them may cost, and that all others are answered."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("openai")

from iranker_verl.inference.engine import stopped_processes
from iranker_verl.inference.ranker import AsyncRanker
from iranker_verl.serving import access, server, watch
from iranker_verl.serving.access import Admission, Bodies, Refusal
from tests.serving.running import BODY, begun, counted, exclude_first, refused, serving


def closes(line, within=10):
    """Return what a connection still gets until the server closes it."""
    line.settimeout(within)
    received = b""
    while chunk := line.recv(65536):
        received += chunk
    return received


def test_a_head_that_never_ends_is_cut_off_by_its_size_and_by_time(monkeypatch):
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    with serving() as (client, _):
        address = (client.base_url.host, client.base_url.port)
        with socket.create_connection(address) as line:
            line.sendall(b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 4000)
            assert b" 400 " in closes(line)
        for begin in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\nX: "):
            with socket.create_connection(address) as line:
                line.sendall(begin)
                assert closes(line) == b""
        with socket.create_connection(address) as line:  # the second request of a connection, too
            line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /he")
            assert closes(line).count(b"HTTP/1.1") == 1
        assert client.post("/v1/rerank", json=BODY).status_code == 200


@pytest.mark.parametrize("limit", ["BODY_S", "PAUSE_S"])
def test_bodies_that_do_not_arrive_are_refused_in_time_and_hold_up_nobody(monkeypatch, limit):
    """Clients that send all but a byte of a large body: more of them than may be read at once."""
    monkeypatch.setattr(access, limit, 1.0)
    with serving() as (client, _):
        size = access.SMALL + 1
        lines = [begun(client, size, b"x" * (size - 1)) for _ in range(access.LARGE_BODIES + 3)]
        assert client.post("/v1/rerank", json=BODY).status_code == 200
        assert client.get("/health").status_code == 200
        assert all(b" 408 " in closes(line, 20) for line in lines)
        small = begun(client, 10, b"{")
        assert b" 408 " in closes(small)
        assert client.post("/v1/rerank", json=BODY | {"documents": ["x" * size, "y"]}).status_code == 200


def test_a_client_that_hangs_up_in_its_body_leaves_nothing_behind(monkeypatch):
    with serving() as (client, _):
        for _ in range(2 * access.LARGE_BODIES):
            begun(client, access.SMALL + 9, b"x").close()
        large = BODY | {"documents": ["x" * access.SMALL, "y"]}
        assert client.post("/v1/rerank", json=large).status_code == 200


def test_a_client_that_never_reads_its_answer_keeps_its_place_until_it_is_cut_off(monkeypatch):
    monkeypatch.setattr(server, "SEND_S", 1.0)
    text = "\u2222" * (access.MAX_CHARACTERS // 3 - 100)  # two bytes each in this body, three in its answer: 6 MB
    body = json.dumps(BODY | {"documents": [text] * 3}, ensure_ascii=False).encode("utf-16-le")
    with serving(max_concurrent_requests=1) as (client, _):
        with begun(client, len(body), body) as line:
            until = time.monotonic() + 20
            while counted(client, 'iranker_requests_total{status="200"}') < 1:
                assert time.monotonic() < until
                time.sleep(0.02)
            assert counted(client, "iranker_rankings_running") == 0
            refused(client.post("/v1/rerank", json=BODY), 429)
            while client.post("/v1/rerank", json=BODY).status_code == 429:
                assert time.monotonic() < until
                time.sleep(0.05)
            assert not closes(line).endswith(b"}")
        assert client.post("/v1/rerank", json=BODY).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (
            b'{"query":"q","documents":["x","y"]'
            + b"".join(b',"a%d":0' % n for n in range(access.MAX_FIELDS * 2))
            + b"}",
            400,
            "texts and names",
        ),
        (b'{"query":"q","documents":["x","y"],"top_n":[' + b"[]," * access.MAX_FIELDS + b"1]}", 400, "values"),
        (
            b'{"query":"q","documents":["x","' + b"\\\\" * 9 + b'",' + b"1," * access.MAX_FIELDS * 2 + b"1]}",
            400,
            "values",
        ),
        (b'{"query":"x","documents":' + b"[" * 20_000, 400, "JSON"),
        (b'{"query":"x","documents":' + b"[" * 100_000, 400, "values"),
        (b'{"query":"x","documents":["y"],"top_n":' + b"9" * 5000 + b"}", 400, "JSON"),
        (b'{"query":"x","documents":["y"],"top_n":NaN}', 400, "top_n"),
        (b"\xff\xfe\xff", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"[]", 400, "body"),
        (json.dumps(BODY | {"documents": ["x" * (access.MAX_CHARACTERS // 2)] * 3}).encode(), 413, "characters"),
    ],
    ids=[
        "fields",
        "lists",
        "numbers",
        "brackets",
        "many brackets",
        "digits",
        "nan",
        "encoding",
        "nothing",
        "list",
        "characters",
    ],
)
def test_monstrous_bodies_are_refused_before_anything_is_asked(body, status, words):
    with serving() as (client, behind):
        assert words in refused(client.post("/v1/rerank", content=body), status)
        assert behind.requests == []


def test_what_a_text_holds_is_not_counted_as_values():
    commas = '\\",[{' * access.MAX_FIELDS
    for encoding in ("utf-8", "utf-16"):
        with serving() as (client, _):
            body = json.dumps(BODY | {"documents": [commas, commas + "\u2222"]}, ensure_ascii=False).encode(encoding)
            assert client.post("/v1/rerank", content=body).status_code == 200


@pytest.mark.parametrize("field", ["query", "documents", "model", "scenario", "top_n", "name"])
def test_no_error_repeats_its_input_at_length(field):
    long = "z" * 200_000
    with serving() as (client, _):
        change = {long: 1} if field == "name" else {field: long}
        answered = client.post("/v1/rerank", json=BODY | {"documents": ["x", "y"]} | change)
        assert answered.status_code in (200, 400, 404) and answered.text.count("z") <= 1200


def test_rankings_of_a_client_and_characters_under_way_are_bounded():
    admission = Admission(10, 2)
    with admission.admitted("a", 5), admission.admitted("a", 5):
        with pytest.raises(Refusal, match="2 of your rankings"), admission.admitted("a", 5):
            pass
        with admission.admitted("b", 5):
            pass
    most = access.MAX_CHARACTERS
    held = [admission.admitted(str(n), most) for n in range(access.CHARACTERS_UNDER_WAY // most)]
    admission = Admission(100)
    held = [admission.admitted(str(n), most) for n in range(access.CHARACTERS_UNDER_WAY // most)]
    for one in held:
        one.__enter__()
    with pytest.raises(Refusal, match="long texts"), admission.admitted("x", 1):
        pass
    for one in held:
        one.__exit__(None, None, None)
    with admission.admitted("x", most):
        pass


def test_the_slot_of_a_check_is_free_when_it_ends_and_not_when_its_client_leaves():
    """Clients that send long lists and hang up: one check at a time runs, and those not begun never do."""
    running, most, started, go = 0, 0, [], threading.Event()

    def check(self, query, candidates, scenario="passage"):
        nonlocal running, most
        running += 1
        most = max(most, running)
        started.append(query)
        go.wait(20)
        running -= 1

    async def main():
        ranker = AsyncRanker.__new__(AsyncRanker)
        ranker._engine, ranker._checkers = object(), (ThreadPoolExecutor(1), ThreadPoolExecutor(1))
        long = ["x" * 200_000, "y"]
        jobs = [asyncio.create_task(ranker.rank(str(n), long)) for n in range(10)]
        await asyncio.sleep(0.1)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        short = asyncio.create_task(ranker.rank("short", ["x", "y"]))
        while "short" not in started:  # a short list waits for no long one
            await asyncio.sleep(0.01)
        go.set()
        await short
        await ranker.rank("last", long)

    original, AsyncRanker.check = AsyncRanker.check, check
    try:
        asyncio.run(main())
    finally:
        AsyncRanker.check = original
    assert started == ["0", "short", "last"] and most == 2


def test_a_large_body_is_parsed_off_the_event_loop(monkeypatch):
    threads = []
    parse = access._parse
    monkeypatch.setattr(access, "_parse", lambda raw: (threads.append(threading.current_thread().name), parse(raw))[1])
    with serving() as (client, _):
        for text in ("x", "x" * access.SMALL):
            assert client.post("/v1/rerank", json=BODY | {"documents": [text, "y"]}).status_code == 200
    assert threads[1].startswith("parse") and not threads[0].startswith("parse")
    Bodies().close()


# ------------------------------------------------------------------------------------------------ watchdog and deadlines


@pytest.mark.skipif(sys.platform != "linux", reason="process states")
def test_a_stopped_process_of_ours_is_found_and_goes_on_later():
    before = {os.getpid()}
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        assert child.pid not in stopped_processes(before)
        child.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 10
        while child.pid not in stopped_processes(before):
            assert time.monotonic() < until
        assert child.pid not in stopped_processes({child.pid})
        child.send_signal(signal.SIGCONT)
        while child.pid in stopped_processes(before):
            assert time.monotonic() < until
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("hangs", [False, True])
def test_open_requests_end_with_503_when_the_engine_stops(monkeypatch, hangs):
    monkeypatch.setattr(watch, "EVERY_S", 0.05)
    monkeypatch.setattr(watch, "PATIENCE_S", 0.3)
    stopped, free = threading.Event(), threading.Event()

    async def check_alive(_):
        if stopped.is_set():
            if hangs:
                await asyncio.sleep(3600)
            raise RuntimeError("process 1 is stopped")

    monkeypatch.setattr(AsyncRanker, "check_alive", check_alive)

    def waits(request, number):
        free.wait(20)
        return exclude_first(request, number)

    with serving(waits) as (client, _), ThreadPoolExecutor(1) as pool:
        open_request = pool.submit(client.post, "/v1/rerank", json=BODY)
        while counted(client, "iranker_rankings_running") < 1:
            time.sleep(0.02)
        assert client.get("/health").status_code == 200
        stopped.set()
        assert "engine" in refused(open_request.result(20), 503)
        assert "engine" in refused(client.get("/health"), 503)
        stopped.clear()
        free.set()
        until = time.monotonic() + 20
        while client.get("/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert client.post("/v1/rerank", json=BODY).status_code == 200


def test_a_ranking_that_takes_too_long_is_504():
    free = threading.Event()

    def waits(request, number):
        free.wait(20)
        return exclude_first(request, number)

    with serving(waits, timeout_s=0.3) as (client, _):
        assert "0 seconds" in refused(client.post("/v1/rerank", json=BODY), 504)
        assert counted(client, "iranker_rankings_running") == 0
        free.set()


def test_every_open_request_is_answered_when_the_server_ends(monkeypatch):
    monkeypatch.setattr(server, "DRAIN_S", 0.5)
    free = threading.Event()

    def waits(request, number):
        free.wait(20)
        return exclude_first(request, number)

    with ThreadPoolExecutor(4) as pool, httpx.Client(timeout=20) as own:
        with serving(waits) as (client, _):
            url = str(client.base_url.join("/v1/rerank"))
            jobs = [pool.submit(own.post, url, json=BODY) for _ in range(3)]
            while counted(client, "iranker_rankings_running") < 3:
                time.sleep(0.02)
        assert [job.result(20).status_code for job in jobs] == [503] * 3
        free.set()


def test_the_address_is_logged_once_the_server_is_ready(monkeypatch):
    lines = []
    monkeypatch.setattr(server.LOG, "info", lambda words, *values, **_: lines.append(words % values))
    with serving() as (client, _):
        assert [line for line in lines if "running on" in line] == [
            f"Uvicorn running on http://127.0.0.1:{client.base_url.port} (Press CTRL+C to quit)"
        ]


def test_what_the_models_server_says_is_not_logged(caplog):
    words = "your text was: SECRET \x1b[31m"
    with serving(lambda request, number: (422, {"error": {"message": words}})) as (client, _):
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        refused(client.post("/v1/rerank", json=BODY), 502)
    assert "422" in caplog.text and "SECRET" not in caplog.text and "\x1b" not in caplog.text
