"""Who may ask the server, for what, and what its answers may do in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.recordings import training

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("dash")

from tracelens_dashboards.library import Library
from tracelens_dashboards.security import LOOPBACK
from tracelens_dashboards.serve import wsgi

TOKEN = "a-token-of-this-test"  # noqa: S105


@pytest.fixture
def open_to_all(tmp_path: Path) -> Any:
    return wsgi(Library([training(tmp_path / "run.sqlite")]))


@pytest.fixture
def guarded(tmp_path: Path) -> Any:
    library = Library([training(tmp_path / "run.sqlite")])
    return wsgi(library, (*LOOPBACK, "gpu.example"), TOKEN)


@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/_dash-dependencies", "/assets/shell.js"])
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "", "[::2]:8050"]
)
def test_a_foreign_host_is_refused_everywhere(open_to_all: Any, path: str, host: str) -> None:
    with open_to_all.test_client().get(path, headers={"Host": host}) as answer:
        assert answer.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8050", "localhost:1", "[::1]:8050", "localhost"])
def test_this_machine_is_admitted_by_its_names(open_to_all: Any, host: str) -> None:
    assert open_to_all.test_client().get("/", headers={"Host": host}).status_code == 200


def test_every_answer_carries_a_strict_policy(open_to_all: Any) -> None:
    client = open_to_all.test_client()

    for path in ("/", "/_dash-layout", "/assets/shell.js", "/nowhere/at/all", "/api/none"):
        with client.get(path, headers={"Origin": "http://evil.example"}) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_first_page_loads_nothing_from_elsewhere(open_to_all: Any) -> None:
    page = open_to_all.test_client().get("/").text

    assert "http://" not in page
    assert "https://" not in page


def test_a_form_of_another_site_changes_nothing(open_to_all: Any) -> None:
    answer = open_to_all.test_client().post(
        "/_dash-update-component", data="{}", content_type="text/plain"
    )

    assert answer.status_code in (400, 415)


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%2f..%2fapp.py",
        "/assets//etc/passwd",
    ],
)
def test_no_file_beside_the_assets_can_be_asked_for(open_to_all: Any, path: str) -> None:
    answer = open_to_all.test_client().get(path)

    assert answer.status_code == 404 or "def create" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=a-token-of-this-tes"])
def test_without_the_token_there_is_nothing(guarded: Any, query: str) -> None:
    client = guarded.test_client()

    for path in ("/", "/_dash-layout", "/assets/shell.js"):
        assert client.get(path + query).status_code == 403
    assert client.post("/_dash-update-component" + query, json={}).status_code == 403


def test_the_token_is_shown_once_and_then_a_cookie(guarded: Any) -> None:
    client = guarded.test_client()

    first = client.get(f"/0123456789ab/timeline?from=5&token={TOKEN}")

    assert first.status_code == 302
    assert first.headers["Location"] == "/0123456789ab/timeline?from=5"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/_dash-layout").status_code == 200


def test_the_token_leads_to_no_other_host(guarded: Any) -> None:
    answer = guarded.test_client().get(f"//evil.example/x?token={TOKEN}")

    assert not answer.headers.get("Location", "/").startswith("//")
    assert "evil.example/" not in answer.headers.get("Location", "/").partition("/")[0]


def test_a_foreign_host_with_the_token_is_refused_too(guarded: Any) -> None:
    client = guarded.test_client()

    assert client.get(f"/?token={TOKEN}", headers={"Host": "evil.example"}).status_code == 400
    assert client.get(f"/?token={TOKEN}", headers={"Host": "gpu.example:1"}).status_code == 302
