"""Judges: their prompts, the parsing and caching of replies, and faults of an endpoint."""

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from convllava.eval import Prediction, Scoring, find_benchmark
from convllava.eval.judge import Endpoint, Judge, read_points
from convllava.eval.scoring import score_file

Reply = tuple[str, dict[str, int]]


class Scripted:
    """An endpoint with prepared replies that records its prompts."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, float]] = []

    def __call__(self, prompt: str, temperature: float) -> Reply:
        self.asked.append((prompt, temperature))
        return self.replies.pop(0), {"prompt_tokens": 10, "completion_tokens": 1}


def test_points_are_the_first_bare_number(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "eval/vectors/mmvet.json").read_text(encoding="utf-8"))["reply_parsing"]
    for case in cases:
        endpoint = Scripted(case["judge_replies_in_order"])
        points = Judge(endpoint, "m").points("q", "a", "p")
        assert points == case["expected"]["score"], case["id"]
        assert [temperature for _, temperature in endpoint.asked] == case["expected"]["temperatures"], case["id"]


def test_the_last_line_of_the_prompt(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "eval/vectors/mmvet.json").read_text(encoding="utf-8"))["judge_prompt"]
    for case in cases:
        endpoint = Scripted(["1"])
        Judge(endpoint, "m").points(case["question"], str(case["answer"]), str(case["prediction"]))
        assert endpoint.asked[0][0].endswith("\n\n" + case["expected"]["tail_line"]), case["id"]


def test_nan_is_not_a_number_of_points() -> None:
    assert read_points(["nan", "0.3"]) == 0.3
    assert read_points([]) == 0


MCQ = {"question": "Which?", "A": "cat", "B": "dog", "answer": "B", "category": "c"}


def test_only_unresolved_choices_are_asked_about() -> None:
    endpoint = Scripted(["I think B"])
    predictions = [
        Prediction("0", MCQ, "A"),
        Prediction("1", MCQ, "the canine"),
        Prediction("2", MCQ, "", error="too long"),
    ]
    judged, said = Judge(endpoint, "m").judge(find_benchmark("seedbench"), predictions, Scoring())
    assert [prediction.judgment for prediction in judged] == [None, "B", None]
    assert "A. cat\nB. dog\nAnswer: the canine\nYour output: " in endpoint.asked[0][0]
    assert (said["requests"], said["prompt_tokens"], said["judged"]) == (1, 10, 1)
    outcome = find_benchmark("seedbench").outcome(judged, Scoring())
    assert outcome.value == pytest.approx(100 / 3)


def test_prose_that_names_no_option_counts_as_a_refusal() -> None:
    endpoint = Scripted(["well", "hard to say", "perhaps"])
    (judged,), _ = Judge(endpoint, "m").judge(find_benchmark("seedbench"), [Prediction("0", MCQ, "?")], Scoring())
    assert judged.judgment == "Z"
    assert len(endpoint.asked) == 3


def test_yes_or_no() -> None:
    row = {"question": "Is it red?", "answer": "Yes", "category": "random"}
    endpoint = Scripted(["maybe", "Yes"])
    (judged,), _ = Judge(endpoint, "m").judge(find_benchmark("pope"), [Prediction("0", row, "It is.")], Scoring())
    assert judged.judgment == "Yes"
    assert find_benchmark("pope").outcome([judged], Scoring()).value == 100


def test_replies_are_cached_even_in_a_damaged_file(tmp_path: Path) -> None:
    cache = tmp_path / "judge.jsonl"
    first = Judge(Scripted(["0.5"]), "m", cache)
    assert first.points("q", "a", "p") == 0.5
    with cache.open("a") as stream:
        stream.write('{"key": "cut of')
    again = Judge(Scripted([]), "m", cache)
    assert again.points("q", "a", "p") == 0.5
    assert (again.cost.requests, again.cost.cached) == (0, 1)
    with pytest.raises(IndexError):  # another model has said nothing yet
        Judge(Scripted([]), "other", cache).points("q", "a", "p")


def test_prompts_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "points.txt").write_text("{question}/{answer}/{prediction}")
    endpoint = Scripted(["1"])
    Judge(endpoint, "m", prompts=tmp_path).points("{prediction}?", "x<OR>y", "z")
    assert endpoint.asked[0][0] == "{prediction}?/x <OR> y/z"
    with pytest.raises(ValueError, match="is not a folder"):
        Judge(endpoint, "m", prompts=tmp_path / "nothing")


class Server(HTTPServer):
    statuses: list[int]
    bodies: list[dict[str, Any]]
    keys: list[str | None]
    reply: bytes


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(self.server.reply if status == 200 else b"{}")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server(("127.0.0.1", 0), Handler)
    own.statuses, own.bodies, own.keys = [], [], []
    content = {"choices": [{"message": {"content": "0.8"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    own.reply = json.dumps(content).encode()
    thread = threading.Thread(target=own.serve_forever, daemon=True)
    thread.start()
    yield own
    own.shutdown()
    own.server_close()


def endpoint_of(server: Server, waits: list[float]) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", "gpt-x", "secret", wait=waits.append)


def test_a_busy_endpoint_is_retried_with_longer_waits(server: Server) -> None:
    waits: list[float] = []
    server.statuses = [429, 500]
    assert endpoint_of(server, waits)("hello", 0.5) == ("0.8", {"prompt_tokens": 7, "completion_tokens": 2})
    assert waits == [2.0, 4.0]
    assert server.keys[0] == "Bearer secret"
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert "secret" not in repr(endpoint_of(server, waits))


def test_a_rejected_request_is_not_retried(server: Server) -> None:
    waits: list[float] = []
    server.statuses = [401]
    with pytest.raises(ValueError, match=r"does not answer \(HTTP 401\): check the URL, the model name 'gpt-x'"):
        endpoint_of(server, waits)("hello", 0)
    assert waits == []


def test_a_url_without_a_chat_endpoint_is_an_error(server: Server) -> None:
    server.reply = b"<html>"
    with pytest.raises(ValueError, match="is not that of a chat endpoint"):
        endpoint_of(server, [])("hello", 0)


def test_mmvet_is_scored_by_a_judge(server: Server, write_predictions: Any, tmp_path: Path) -> None:
    row = {"question": "What?", "answer": "a<AND>b", "category": "rec,ocr"}
    path = write_predictions(tmp_path, "mmvet", [(row, "a and b")])
    judge = Judge(endpoint_of(server, []), "gpt-x", tmp_path / "judge.jsonl")
    score = score_file(path, judge=judge).score
    assert score.value == pytest.approx(80)
    assert score.scoring["judge"]["model"] == "gpt-x"
    assert score.scoring["judge"]["completion_tokens"] == 2
    with pytest.raises(ValueError, match="no points without a judge"):
        score_file(path)
