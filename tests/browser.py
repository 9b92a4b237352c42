"""A headless Chromium driven over a pipe: pages opened, keys pressed, scripts asked."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "chrome", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "they drive a real browser, which pip cannot install: put Chromium or Chrome on the PATH"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
CODES = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
SECONDS = 30


class Browser:
    """One tab, spoken to by the DevTools protocol."""

    def __init__(self, write, read):
        self._write, self._read, self._count, self._rest = write, read, 0, b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    _session = None

    def call(self, method, **parameters):
        """Call one method and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            found = os.read(self._read, 1 << 16)
            assert found, "the browser is gone"
            self._rest += found
        first, _, self._rest = self._rest.partition(b"\0")
        return json.loads(first)

    def open(self, address):
        """Go to a page and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, script):
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.ask(script):
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def press(self, key, times=1):
        """Press a key, as a person would."""
        event = {"key": key, "code": "Space" if key == " " else key}
        event |= {"windowsVirtualKeyCode": CODES[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        for _ in range(times):
            down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.call("Input.dispatchKeyEvent", **down, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def scheme(self, name):
        """Prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)


@contextmanager
def browser(home):
    """A browser with a profile of its own in `home`."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    # over there the pipes are 3 and 4; here they are neither, so that one cannot hide the other
    held = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
    start = f"import os, sys; os.dup2({held[0]}, 3); os.dup2({held[1]}, 4); "
    start += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-S", "-c", start, CHROMIUM, *FLAGS]
    command += ["--remote-debugging-pipe", f"--user-data-dir={home}"]
    running = subprocess.Popen(command, pass_fds=held, stderr=subprocess.DEVNULL)
    for fd in (theirs_in, theirs_out, *held):
        os.close(fd)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        running.terminate()
        running.wait(SECONDS)
        os.close(ours_out)
        os.close(ours_in)
