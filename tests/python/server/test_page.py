"""The page at / in a browser, and /snapshot, which it and ``pagedcore top`` show."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from .browser import CHROMIUM, Browser
from .conftest import MODEL, Server

SECRET = "Zanzibar"  # stands in prompts and must stand nowhere else
KEY = "sesame-4711"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a key, few blocks, and swap space."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    flags = ["--port", "0", "--served-model-name", MODEL, "--num-blocks", "120", "--swap-space", "8MiB"]
    running = Server.start(*flags, "--api-key-file", str(keys), "--max-sequences", "4")
    yield running
    assert running.stop() == 0
    assert SECRET not in "".join(running.raw)


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """Two samples of a prompt, and six more requests of which some wait, all under way."""
    ended = threading.Event()

    def ask(n: int, number: int) -> None:
        body = {"model": MODEL, "prompt": f"{SECRET} {number} " + "word " * 40, "n": n, "max_tokens": 400}
        while not ended.is_set():
            with suppress(TimeoutError), server.connect(120) as client:
                data = json.dumps({**body, "stream": True, "ignore_eos": True}).encode()
                head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                head += f"authorization: Bearer {KEY}\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
                client.sendall(head.encode() + data)
                while not ended.is_set() and client.recv(65536):
                    pass

    threads = [threading.Thread(target=ask, args=(2 if i == 0 else 1, i)) for i in range(7)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def snapshot(server: Server, query: str = "") -> Any:
    reply = server.send("GET", "/snapshot" + query, authorization=f"Bearer {KEY}")
    assert reply.status == 200, reply
    return reply.json


def wait_for(server: Server, what: Any) -> Any:
    end = time.monotonic() + 60
    while not what(found := snapshot(server)):
        assert time.monotonic() < end, found
        time.sleep(0.3)
    return found


def has_all(found: Any) -> bool:
    places = {request["place"] for request in found["requests"]}
    return {"running", "waiting"} <= places and max(base64.b64decode(found["kv"]["cells"])) >= 4


def test_a_snapshot_adds_up_and_holds_no_text(guarded: Server) -> None:
    with busy(guarded):
        found = wait_for(guarded, has_all)
    cells = base64.b64decode(found["kv"]["cells"])
    assert len(cells) == found["kv"]["blocks"] == 120 and found["kv"]["blocks_per_cell"] == 1
    entries = memoryview(base64.b64decode(found["entries"])).cast("I")
    holders = [0] * 120
    for table in found["tables"]:
        blocks = entries[table["first_entry"] : table["first_entry"] + table["num_entries"]]
        for block in blocks:
            if block < 120:
                holders[block] += 1
    assert [cell - 2 if cell > 2 else 0 for cell in cells] == holders, "what tables list is what the map says"
    assert 2 in holders, "two samples share their prompt"
    assert all(step["seconds"] >= step["plan_seconds"] >= 0 for step in found["steps"])
    numbers = [step["step"] for step in found["steps"]]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) <= 240
    text = json.dumps(found)
    assert SECRET not in text and "word" not in text and KEY not in text
    assert len(text) < 500_000


def test_viewers_share_a_snapshot_and_their_calls_are_not_logged(guarded: Server) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(snapshot(guarded))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each["time"] for each in found}) < 8
    assert guarded.send("GET", "/snapshot").status == 401
    guarded.wait_for("call", path="/snapshot", status=401)
    assert not [line for line in guarded.raw if '"/snapshot"' in line and '"status": 401' not in line]


@pytest.mark.parametrize(
    "asked", ["x", "-1", "1.5", "99999999999999999999999", "18446744073709551616", "%00", "1&request="]
)
def test_what_is_no_request_is_refused(guarded: Server, asked: str) -> None:
    reply = guarded.send("GET", f"/snapshot?request={asked}", x_api_key=KEY)
    assert reply.status == 400 and reply.error["param"] == "request"
    assert guarded.send("GET", "/snapshot?request=18446744073709551615", x_api_key=KEY).status == 200


def test_the_page_needs_no_key_loads_nothing_from_elsewhere_and_can_be_turned_off(guarded: Server) -> None:
    page = guarded.send("GET", "/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"page/page.js", "page/page.css"} <= set(names)
    for name in names:
        assert name.startswith("data:") or guarded.send("GET", "/" + name).status == 200
    for name in ("page.js", "memory.js", "numbers.js", "page.css"):
        text = guarded.send("GET", f"/page/{name}").text
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert guarded.send("GET", f"/page/{imported}").headers["content-type"].startswith("text/javascript")
    off = Server.start("--port", "0", "--num-blocks", "64", "--no-page")
    try:
        assert [off.send("GET", path).status for path in ("/", "/snapshot", "/page/page.js", "/health")] == [
            404,
            404,
            404,
            200,
        ]
        done = top(off, "--once")
        assert done.returncode == 1 and "--no-page" in done.stderr
    finally:
        assert off.stop() == 0


@needs_chromium
def test_the_page_shows_the_memory_and_the_requests(guarded: Server, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser, busy(guarded):
        browser.open(guarded.address + "/")
        browser.until("!document.getElementById('ask').hidden")
        assert browser.text("#status") == "needs a key"
        # A wrong key, then the right one.
        for key, then in (
            ("wrong", "document.getElementById('refused').textContent"),
            (KEY, "!document.getElementById('all').hidden"),
        ):
            browser.js(f"document.getElementById('key').value = {key!r}; document.querySelector('#ask button').click()")
            browser.until(then)
        assert browser.js("document.getElementById('ask').offsetParent === null"), "it is not to be seen any more"
        assert browser.text("#model") == MODEL
        browser.until("document.getElementById('status').textContent.startsWith('ready')")
        browser.until("document.querySelectorAll('#rows tr').length >= 7")
        states = browser.js("[...document.querySelectorAll('#rows tr')].map((row) => row.cells[1].textContent)")
        assert set(states) <= {"running", "waiting", "swapped"} and "running" in states
        browser.until("/output|Output/.test(document.getElementById('tiles').textContent)")
        assert browser.text("#memory-text").startswith("120 blocks of 16 tokens: ")
        # The arrow keys move over the map, and say what is there: somebody's block, in the end.
        browser.js("document.getElementById('map').focus()")
        browser.key("Home")
        seen = {browser.text("#detail")}
        for _ in range(119):
            browser.key("ArrowRight")
            seen.add(browser.text("#detail"))
        assert any(re.fullmatch(r"Block \d+: one sequence: request \d+", text) for text in seen), seen
        assert any(re.fullmatch(r"Block \d+: shared by \d+ sequences: request \d+.*", text) for text in seen), seen
        # So does the mouse.
        box = browser.js("document.getElementById('map').getBoundingClientRect().toJSON()")
        x, y = box["left"] + 5, box["top"] + 5
        browser.mouse("Moved", x, y)
        assert browser.text("#detail").startswith("Block 0: ")
        # A request that is clicked shows its block table, whose entries are those of the snapshot.
        chosen = browser.until(
            """(() => {
              const rows = [...document.querySelectorAll('#rows tr')];
              const row = rows.find((row) => row.cells[1].textContent === 'running');
              row?.click();
              return row?.querySelector('button').dataset.request;
            })()"""
        )
        browser.until("!document.getElementById('table').hidden && document.querySelectorAll('#tables li').length > 0")
        assert browser.text("#table-title") == f"Block table of request {chosen}"
        assert re.match(r"0 → \d+", browser.text("#tables li"))
        browser.js("document.getElementById('close').click()")
        assert browser.js("document.getElementById('table').hidden")
        assert not browser.errors or all("401" in error for error in browser.errors), browser.errors
        page = str(browser.js("document.documentElement.outerHTML"))
        assert SECRET not in page


@needs_chromium
def test_the_page_asks_only_while_it_is_looked_at(guarded: Server, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        browser.open(guarded.address + "/")
        browser.until("document.readyState === 'complete'")
        browser.js(
            "window.asked = 0; const real = window.fetch;"
            "window.fetch = (...all) => { window.asked++; return real(...all); };"
            f"sessionStorage.setItem('key', {KEY!r}); document.getElementById('key').value = {KEY!r};"
            "document.querySelector('#ask button').click()"
        )
        browser.until("window.asked >= 2")
        browser.js("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        time.sleep(1.5)  # what was on its way
        before = browser.js("window.asked")
        time.sleep(2.5)
        assert browser.js("window.asked") == before
        browser.js("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        browser.until(f"window.asked > {before}")


@needs_chromium
def test_numbers_are_made_of_snapshots(guarded: Server, tmp_path: Path) -> None:
    """By arithmetic, in the browser."""
    with Browser(tmp_path) as browser:
        browser.open(guarded.address + "/")
        browser.until("document.readyState === 'complete'")
        found = browser.js(
            """(async () => {
              const n = await import('/page/numbers.js');
              const m = await import('/page/memory.js');
              const bounds = [0.1, 1, 10];
              const at = (counts, t, time) => ({ time, stats: { t }, latency: { l: { bounds, counts } } });
              const [a, b] = [at([4, 0, 0, 0], 10, 1), at([4, 6, 4, 0], 40, 3)];
              const one = { request: 5 };
              const holders = new Map([[3, [one]], [5, [one, { request: 0, prefix: 2 }]]]);
              const s = { kv: { blocks: 7, blocks_per_cell: 3 }, cells: [0, 4, 1], holders };
              const shares = [[b, a, 0.5], [b, a, 0.95], [a, a, 0.5]];
              return [n.rate(b, a, 't'), n.rate(a, null, 't'), ...shares.map(([x, y, p]) => n.percentile(x, y, 'l', p)),
                      ...[0.00025, 0.0314, 90, null].map(n.seconds), n.plural(1, 'block'), n.plural(1234, 'block'),
                      ...[0, 1, 2].map((cell) => m.cellText(s, cell))];
            })()"""
        )
    assert found[:5] == [15, 0, 1, 10, None]
    assert found[5:11] == ["250 µs", "31.4 ms", "90 s", "–", "1 block", "1,234 blocks"]
    assert found[11:] == [
        "Blocks 0 to 2: free",
        "Blocks 3 to 5: shared by 2 sequences: request 5 (2 times), prefix 2",
        "Blocks 6 to 6: cached, held by nobody",
    ]


@needs_chromium
@pytest.mark.parametrize("dark", [False, True])
def test_texts_can_be_read_in_light_and_in_dark(guarded: Server, tmp_path: Path, dark: bool) -> None:
    """Contrast of at least 4.5 to 1 for texts, and 3 to 1 for what the map tells apart (WCAG 2.2, 1.4.3 and 1.4.11)."""
    with Browser(tmp_path, dark=dark) as browser:
        browser.open(guarded.address + "/")
        browser.until("document.readyState === 'complete'")
        colours = browser.js(
            """(() => {
              const style = getComputedStyle(document.documentElement);
              const names = ['paper', 'card', 'ink', 'quiet', 'free', 'owned', 'shared', 'swapped'];
              return Object.fromEntries(names.map((name) => [name, style.getPropertyValue('--' + name).trim()]));
            })()"""
        )

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(colours[one]), light(colours[other])))
        return (high + 0.05) / (low + 0.05)

    assert (light(colours["paper"]) < 0.1) is dark
    for text in ("ink", "quiet"):
        for ground in ("paper", "card"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for cell in ("owned", "shared", "swapped"):
        assert contrast(cell, "free") >= 3, cell


def top(server: Server, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedcore", "top", server.address, *flags]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_top_once_prints_what_there_is(guarded: Server, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# mine\n{KEY}\n")
    with busy(guarded):
        wait_for(guarded, has_all)
        done = top(guarded, "--once", "--api-key-file", str(keys), COLUMNS="100")
    assert done.returncode == 0 and not done.stderr
    assert "\x1b" not in done.stdout and SECRET not in done.stdout
    assert re.search(r"KV memory: 120 blocks of 16 tokens: [1-9]\d* used", done.stdout)
    assert re.search(r"^ +\d+ running +\d+ ", done.stdout, re.MULTILINE)
    assert re.search(r"^[·c~1-9+]{100}$", done.stdout, re.MULTILINE)
    refused = top(guarded, "--once")
    assert (refused.returncode, refused.stdout) == (1, "") and "asks for an API key" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def screens(master: int, until: str) -> str:
    """What comes from a terminal until this has."""
    data, end = "", time.monotonic() + 60
    while until not in data:
        assert select.select([master], [], [], max(end - time.monotonic(), 0))[0], data
        data += os.read(master, 65536).decode(errors="replace")
    return data


def test_top_fills_a_terminal_follows_its_size_and_leaves_it_as_it_was(guarded: Server) -> None:
    master, slave = pty.openpty()
    resize(slave, 30, 90)
    before = termios.tcgetattr(slave)
    command = [sys.executable, "-m", "pagedcore", "top", guarded.address, "--interval", "0.2"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**environment, "PAGEDCORE_API_KEY": KEY + ",other"}
    )
    try:
        first = screens(master, "no requests")
        assert first.startswith("\x1b[?1049h\x1b[?25l") and "120 blocks of 16 tokens" in first
        for rows, columns in ((10, 40), (50, 150)):
            resize(slave, rows, columns)
            process.send_signal(signal.SIGWINCH)
            time.sleep(0.5)  # two pictures
            os.read(master, 1 << 20)
            picture = screens(master, "\x1b[J").rpartition("\x1b[H")[2]
            lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", picture).split("\r\n")
            assert len(lines) <= rows and max(map(len, lines)) <= columns
        os.write(master, b"q")
        assert process.wait(timeout=60) == 0
        assert screens(master, "\x1b[?1049l").endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(slave)[:4] == before[:4]
    finally:
        process.kill()
        os.close(master)
        os.close(slave)


def test_top_says_what_is_not_there(guarded: Server, tmp_path: Path) -> None:
    def said(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pagedcore", "top", *arguments, "--once"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1, done
        return done.returncode, done.stderr

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for address in (nobody, f"unix:{tmp_path}/none.sock", "http://name.invalid"):
        status, message = said(address)
        assert status == 1 and address in message
    for address in ("ftp://x", "http://", "unix:", "http://x:99999", "http://[::1"):
        status, message = said(address)
        assert status == 2 and "is no address" in message, address
    assert said(nobody, "--interval", "0")[0] == 2
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    status, message = said(guarded.address, "--api-key-file", str(keys), "--model", "other")
    assert status == 1 and "serves no model 'other'" in message
