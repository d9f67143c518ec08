"""How the explorer is served: at which address and port, and what the user is told of it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.recordings import training
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytest.importorskip("dash")

from tracelens_dashboards import serve as serving
from tracelens_dashboards.library import Library

PATIENCE_S = 60
EVERYWHERE = "0.0.0.0"  # noqa: S104 # what must not be listened at


@contextmanager
def explore(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command until it has told its address, and stop it by Ctrl-C in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tracelens", "explore", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    watch = threading.Timer(PATIENCE_S, process.kill)
    watch.start()
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if line.startswith("Explorer: "):
                break
        yield process, "".join(lines)
    finally:
        watch.cancel()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def addresses_of(pid: int, port: int) -> set[str]:
    """Return the addresses at which anything listens at a port, as Linux tells them."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text("ascii").splitlines()[1:]:
            place, state = line.split()[1], line.split()[3]
            address, _, number = place.rpartition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address)
    return found


def status_of(host: str, port: int) -> int:
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE_S)) as asking:
        asking.request("GET", "/")
        return asking.getresponse().status


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who listens")
def test_it_listens_at_the_loopback_whatever_host_says(tmp_path: Path) -> None:
    path = training(tmp_path / "run.sqlite")

    with explore(str(path), "--no-browser", HOST=EVERYWHERE) as (process, said):
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", said)[0])
        listening = addresses_of(process.pid, port)
        status = status_of("127.0.0.1", port)

    assert listening == {"0100007F"}
    assert status == 200
    assert "token" not in said
    assert "Warning" not in said


def test_an_address_for_others_comes_with_a_warning_and_a_token(tmp_path: Path) -> None:
    path = training(tmp_path / "run.sqlite")

    with explore(str(path), "--no-browser", "--host", "127.0.0.2") as (_, said):
        port, token = re.findall(r"http://127\.0\.0\.2:(\d+)/\?token=(\S+)", said)[0]
        status = status_of("127.0.0.2", int(port))

    assert status == 403
    assert said.startswith("Warning: anyone who can reach 127.0.0.2 ")
    assert len(token) >= 32


def test_a_taken_port_is_passed_over_or_refused(tmp_path: Path) -> None:
    library = Library([training(tmp_path / "run.sqlite")])
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UsageError, match=rf"Cannot listen at 127\.0\.0\.1:{port}.*--port"):
            serving._listening("127.0.0.1", port, library, None)
        with closing(socket.socket()) as first:
            is_free = first.connect_ex(("127.0.0.1", serving.FIRST_PORT)) != 0
        server, chosen = serving._listening("127.0.0.1", None, library, None)
        server.server_close()

    assert chosen >= serving.FIRST_PORT
    assert chosen == serving.FIRST_PORT or not is_free


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    library = Library([training(tmp_path / "run.sqlite")])

    with pytest.raises(UsageError, match=r"Cannot listen at 192\.0\.2\.1"):
        serving._listening("192.0.2.1", None, library, "token")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_browser_is_opened_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    opened: list[str] = []
    asked = threading.Event()
    monkeypatch.setattr(serving.webbrowser, "open", lambda url: (opened.append(url), asked.set()))

    class Server:
        """Serves until the browser was opened, or would have been, and then sees Ctrl-C."""

        def serve_forever(self) -> None:
            asked.wait(PATIENCE_S if wanted else 2 * serving._STARTED_S)
            raise KeyboardInterrupt

        def server_close(self) -> None:
            pass

    monkeypatch.setattr(serving, "_listening", lambda *_: (Server(), 8050))
    said: list[str] = []
    path = training(tmp_path / "run.sqlite")

    serving.serve([path], host="127.0.0.1", port=None, browser=wanted, say=said.append)

    assert opened == (["http://127.0.0.1:8050/"] if wanted else [])
    assert said[0].startswith("Explorer: http://127.0.0.1:8050/ ")


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_a_signal_without_a_word(tmp_path: Path, way: signal.Signals) -> None:
    with explore(str(training(tmp_path / "run.sqlite")), "--no-browser") as (process, _):
        process.send_signal(way)
        process.wait(PATIENCE_S)
        assert process.stderr is not None
        said = process.stderr.read()

    assert process.returncode == 0
    assert said.strip() == ""


def test_damaged_paths_are_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Server:
        """Serves nothing."""

        def serve_forever(self) -> None:
            pass

        def server_close(self) -> None:
            pass

    monkeypatch.setattr(serving, "_listening", lambda *_: (Server(), 1))
    (tmp_path / "empty").mkdir()

    serving.serve([tmp_path / "empty"], host="127.0.0.1", port=None, browser=False, say=said.append)

    assert any("empty holds no recording" in line for line in said)


def test_all_addresses_are_shown_as_one_that_others_can_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_addresses", lambda: ["198.51.100.7"])

    shown: Sequence[Any] = [serving._shown(host) for host in (EVERYWHERE, "::1", "localhost")]

    assert shown == ["198.51.100.7", "[::1]", "localhost"]
    assert "198.51.100.7" in serving._own()
