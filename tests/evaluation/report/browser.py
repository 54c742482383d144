"""A headless Chromium, spoken to in its DevTools protocol: open a page, listen to it, look at it."""

import base64
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions"),
    *("--remote-debugging-port=0", "--disable-dev-shm-usage"),
)
START_S, ANSWER_S, QUIET_S = 60, 30, 0.5


@dataclass(frozen=True)
class Seen:
    """A page: what ``look`` found, what it asked for, and what it complained of."""

    value: Any
    requests: list[str]
    complaints: list[str]


class Browser:
    """``with Browser(program, folder) as browser: browser.look(url, javascript, width=360, dark=True)``."""

    def __init__(self, program: str, folder: Path) -> None:
        self._profile = folder / "profile"
        command = [program, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> "Browser":
        try:
            self._socket = connect(self._address(), max_size=None, proxy=None)
        except BaseException:
            self.__exit__()
            raise
        self._number = 0
        self._events: list[dict[str, Any]] = []
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _address(self) -> str:
        said = self._profile / "DevToolsActivePort"
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if said.is_file() and len(lines := said.read_text().split()) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"the browser ended with {self._process.returncode}; see {self._profile.parent / 'log'}"
                )
            time.sleep(0.1)
        raise TimeoutError(f"the browser did not open within {START_S} s")

    def look(self, url: str, javascript: str, *, width: int, dark: bool, picture: Path | None = None) -> Seen:
        """Open ``url`` in a window of its own, let it come to rest, and evaluate ``javascript`` there."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        page = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                self._ask(f"{domain}.enable", page)
            phone = width < 500
            self._ask(
                "Emulation.setDeviceMetricsOverride", page, width=width, height=800, deviceScaleFactor=1, mobile=phone
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            self._ask("Emulation.setEmulatedMedia", page, features=[scheme])
            self._ask("Page.navigate", page, url=url)
            self._loaded(page)
            self._listen(QUIET_S)
            found = self._ask("Runtime.evaluate", page, expression=javascript, returnByValue=True)
            if "exceptionDetails" in found:
                raise RuntimeError(str(found["exceptionDetails"]))
            if picture is not None:
                size = self._ask("Page.getLayoutMetrics", page)["cssContentSize"]
                whole = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
                shot = self._ask("Page.captureScreenshot", page, captureBeyondViewport=True, clip=whole)
                picture.write_bytes(base64.b64decode(shot["data"]))
            events = [e for e in self._events if e.get("sessionId") == page]
        finally:
            self._ask("Target.closeTarget", targetId=target)
        requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return Seen(found["result"].get("value"), requests, [c for e in events if (c := _complaint(e))])

    def _ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(ANSWER_S))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def _loaded(self, session: str) -> None:
        ready = "location.href !== 'about:blank' && document.readyState === 'complete'"
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            found = self._ask("Runtime.evaluate", session, expression=ready, returnByValue=True)
            if found["result"].get("value") is True:
                return
            self._listen(0.1)
        raise TimeoutError(f"the page was not loaded within {ANSWER_S} s")

    def _listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._events.append(json.loads(self._socket.recv(left)))
            except TimeoutError:
                return


def _complaint(event: dict[str, Any]) -> str | None:
    """A console error or warning, an uncaught exception, or an entry of the browser's own log."""
    params = event["params"]
    if event["method"] == "Runtime.exceptionThrown":
        details = params["exceptionDetails"]
        return str(details.get("exception", {}).get("description", details["text"]))
    if event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        return " ".join(str(a.get("value", a.get("description"))) for a in params["args"])
    if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        return str(params["entry"]["text"])
    return None
