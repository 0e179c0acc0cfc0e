"""Advisories for pinned versions, from a server of our own that answers as PyPI does."""

import http.server
import json
import subprocess
import sys
import threading

import pytest

from tests.support.paths import ROOT
from tools import check_advisories

KNOWN = {
    "id": "GHSA-1",
    "aliases": ["CVE-2024-1", "GHSA-1"],
    "summary": "",
    "details": "Long\n\ntext",
    "fixed_in": ["2.1"],
    "withdrawn": None,
}
ANSWERS = {
    "/good/1.0/json": {"vulnerabilities": []},
    "/bad/2.0/json": {"vulnerabilities": [KNOWN, KNOWN | {"withdrawn": "2024-01-01T00:00:00Z"}]},
    "/mirror/3.0/json": {"info": {}},
    "/odd/4.0/json": {"vulnerabilities": ["text"]},
}


@pytest.fixture
def source():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(ANSWERS.get(self.path)).encode()
            self.send_response(200 if self.path in ANSWERS else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check(tmp_path, source, lines, *names):
    path = tmp_path / "constraints.txt"
    path.write_text("# made by\n" + "\n".join(lines) + "\n")
    command = [sys.executable, "-m", "tools.check_advisories", f"--constraints={path}"]
    return subprocess.run(
        [*command, f"--source={source}", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_known_of_a_version_is_told(source, tmp_path):
    result = check(tmp_path, source, ["good==1.0", "Bad==2.0 ; python_version < '3.11'"])
    assert result.returncode == 1
    assert result.stdout.splitlines() == [
        "bad 2.0: CVE-2024-1, GHSA-1: Long text (mended in 2.1)",
        "2 versions: 1 advisories, nothing known of 0 versions",
    ]
    assert check(tmp_path, source, ["good==1.0", "bad==2.0"], "good").returncode == 0


def test_a_source_that_does_not_answer_is_said(source, tmp_path):
    lines = ["good==1.0", "mirror==3.0", "odd==4.0", "none==5.0"]
    result = check(tmp_path, source, lines)
    assert result.returncode == 2
    assert "mirror 3.0: not known (an answer without advisories)" in result.stdout
    assert "none 5.0: not known (HTTP 404)" in result.stdout
    assert "nothing known of 3 versions" in result.stdout
    result = check(tmp_path, "http://127.0.0.1:1", [f"p{number}==1" for number in range(9)])
    assert result.returncode == 2
    assert "nothing known of 9 versions" in result.stdout
    assert len(result.stdout.splitlines()) == 4  # it gives up


def test_a_name_that_is_not_pinned(source, tmp_path):
    assert "nothing: not in" in check(tmp_path, source, ["good==1.0"], "nothing").stderr


def test_the_pins_of_the_project_are_read():
    found = dict(check_advisories.pins((ROOT / "constraints.txt").read_text()))
    assert {"tensorflow", "apache-beam", "starlette"} <= found.keys()
