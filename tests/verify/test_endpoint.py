"""A judge behind an endpoint: off unless configured; what it is asked, what it grades; no key in any message."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from divwatch.errors import DivwatchError
from divwatch.records import Prompt
from divwatch.verify import endpoint, get_verifier

KEY = "sk-very-secret"


@pytest.fixture
def served(monkeypatch):
    """An endpoint that grades by the first number of the answer, or fails with a status named in it."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, self.headers.get("Authorization"), body))
            answer = body["messages"][0]["content"].split("[Answer]\n")[1].split("\n[End]")[0]
            status = int(answer.split()[1]) if answer.startswith("fail") else 200
            text = "no idea" if answer == "none" else f"It is so.\n**Grade:** {answer}"
            reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(reply if status == 200 else KEY.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DIVWATCH_JUDGE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
    monkeypatch.setenv("DIVWATCH_JUDGE_MODEL", "judge-1")
    monkeypatch.setenv("DIVWATCH_JUDGE_KEY", KEY)
    monkeypatch.setattr(endpoint.time, "sleep", lambda seconds: None)  # between tries
    yield seen
    server.shutdown()
    server.server_close()


def test_grades_become_right_and_wrong_by_the_threshold(served):
    prompts = [Prompt("a", "open", "Write a poem.")] * 3
    assert [j.correct for j in get_verifier("judge")(["7", "6", "10"], prompts)] == [True, False, True]
    assert [j.correct for j in get_verifier("judge>=6")(["7", "6", "5"], prompts)] == [True, True, False]
    path, authorization, body = served[0]
    assert path == "/v1/chat/completions"
    assert authorization == f"Bearer {KEY}"
    assert (body["model"], body["temperature"]) == ("judge-1", 0)
    assert "Write a poem." in body["messages"][0]["content"]


def test_what_the_judge_cannot_say_is_none_with_a_reason_that_holds_no_key(served):
    answers = ["none", "fail 401", "fail 500", "70"]
    results = get_verifier("judge")(answers, [Prompt("a", "open", "?")] * 4)
    assert [j.correct for j in results] == [None] * 4
    assert [j.reason for j in results[:3]] == [
        "the judge gave no grade", "RuntimeError: the judge answered 401", "RuntimeError: the judge answered 500",
    ]  # fmt: skip
    assert KEY not in str(results)
    assert sum(body["messages"][0]["content"].count("fail 500") for _, _, body in served) == 3  # tried again
    assert sum(body["messages"][0]["content"].count("fail 401") for _, _, body in served) == 1


def test_an_endpoint_that_is_not_there_says_nothing(monkeypatch):
    monkeypatch.setenv("DIVWATCH_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("DIVWATCH_JUDGE_MODEL", "m")
    assert get_verifier("judge")(["x"], [Prompt("a", "open", "?")])[0].correct is None


@pytest.mark.parametrize("url", ["", "localhost:8000", "file:///etc/passwd"])
def test_without_a_configured_judge_there_is_none(monkeypatch, url):
    monkeypatch.setenv("DIVWATCH_JUDGE_URL", url)
    monkeypatch.setenv("DIVWATCH_JUDGE_MODEL", "m")
    with pytest.raises(DivwatchError, match="set DIVWATCH_JUDGE_URL"):
        get_verifier("judge")
    with pytest.raises(DivwatchError, match="write judge>=7"):
        get_verifier("judge>=high")
