"""A real browser that can be told what to do: headless Chromium, by its own debugging protocol.

https://chromedevtools.github.io/devtools-protocol/: JSON, each message ended by a zero byte, through a pair
of pipes that the browser finds as file descriptors 3 and 4.
"""

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.conftest import tool, until

_START = 'exec "$0" "$@" 3<&{} 4>&{}'


@dataclass(slots=True)
class Browser:
    """One open page. `complaints`: what its console says went wrong, such as what a policy blocked."""

    to_browser: IO[bytes]
    from_browser: IO[bytes]
    complaints: list[str] = field(default_factory=list)
    session: str = ""
    sent: int = 0

    def open(self, url: str) -> None:
        """Go to an address and wait until the page is there."""
        self._tell("Page.navigate", url=url)
        self.wait_for("document.readyState == 'complete' && location.href != 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of a script in the page."""
        answer = self._tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, condition: str, timeout_s: float = 30) -> None:
        """Wait until a script is true, also across pages."""

        def holds() -> bool:
            answer = self._tell("Runtime.evaluate", expression=condition, returnByValue=True)
            return bool(answer.get("result", {}).get("value"))

        until(holds, timeout_s, condition)

    @property
    def html(self) -> str:
        """The page as it stands."""
        return str(self.run("document.documentElement.outerHTML"))

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._tell("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press what a selector names."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def log_in(self, name: str, password: str) -> None:
        """Fill in the login form that is on the screen, and wait for the page behind it."""
        self.fill("#name", name)
        self.fill("#password", password)
        self.click(".card button")
        self.wait_for("location.pathname != '/login' && document.readyState == 'complete'")

    def picture(self, path: Path, width: int = 1440, height: int = 900, scheme: str = "dark") -> None:
        """Keep what is on the screen as PNG."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._tell("Emulation.setDeviceMetricsOverride", **metrics)
        scheme_wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self._tell("Emulation.setEmulatedMedia", features=scheme_wanted)
        path.write_bytes(base64.b64decode(self._tell("Page.captureScreenshot")["data"]))

    def _attach(self) -> None:
        target = self._tell("Target.createTarget", url="about:blank")["targetId"]
        self.session = self._tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._tell(f"{domain}.enable")

    def _tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to_browser.write(json.dumps(message).encode() + b"\0")
        self.to_browser.flush()
        while True:
            heard = self._hear()
            if heard.get("id") == self.sent:
                # A page that is just being left answers with an error; whoever waits asks again.
                return dict(heard.get("result", {}))

    def _hear(self) -> dict[str, Any]:
        parts = bytearray()
        while (letter := self.from_browser.read(1)) != b"\0":
            assert letter, "the browser has gone"
            parts += letter
        message: dict[str, Any] = json.loads(parts)
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(message["params"]["entry"]["text"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"]["text"]))
        return message


@contextlib.contextmanager
def open_browser(folder: Path, *options: str) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    command = [
        "bash", "-c", _START.format(their_in, their_out), tool("chromium"), "--headless", "--no-sandbox",
        "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, pass_fds=(their_in, their_out), stderr=subprocess.DEVNULL)
    os.close(their_in)
    os.close(their_out)
    try:
        with os.fdopen(our_out, "wb") as to_browser, os.fdopen(our_in, "rb") as from_browser:
            browser = Browser(to_browser, from_browser)
            browser._attach()
            yield browser
            with contextlib.suppress(BrokenPipeError):
                browser._tell("Browser.close")
    finally:
        process.terminate()
        process.wait(30)
