"""A language model as judge: of MM-Vet's answers, and of choices that the parsing rules cannot extract.

There is no judge by default. The prompts have the structure that the kits document, in different words; a folder with
``choice.txt``, ``yes_no.txt`` and ``points.txt`` replaces them.
"""

import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .benchmark import Benchmark
from .metrics import UNKNOWN, extract_yes_no
from .multiple_choice import REFUSED, ChoiceBenchmark, extract_choice, options_of
from .outcome import Prediction, Scoring

logger = logging.getLogger(__name__)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Temperatures of the attempts to get a bare number, or a plain yes or no (as in VLMEvalKit)."""
NUM_CHOICE_ATTEMPTS = 3
KEY_VARIABLES = ("CONVLLAVA_JUDGE_KEY", "OPENAI_API_KEY")
"""Environment variables with the judge's key; the first that is set is used."""

PROMPTS = {
    "choice": """\
You match an answer to the options of a single-choice question. You are given the question, its options and an \
answer. Decide which option means the same as the answer. If the meaning of every option differs \
clearly from the answer, reply Z. Reply with one capital letter and nothing else.

Example 1:
Question: What is the main object in the image?
Options: There are several options:
A. teddy bear
B. rabbit
C. cat
D. dog
Answer: a cute teddy bear
Your output: A

Example 2:
Question: What is the main object in the image?
Options: There are several options:
A. teddy bear
B. rabbit
C. cat
D. dog
Answer: Spider
Your output: Z

Example 3:
Question: {question}?
Options: There are several options:
{options}
Answer: {prediction}
Your output: """,
    "yes_no": """\
You read an answer to a question which asks for a yes or a no. Reply Yes if the answer says yes, No \
if it says no, and Unknown if it says neither. Reply with one of these words and nothing else.

Example 1:
Question: Is the word in this image 'Hello'?
Answer: The word in the image is 'Hello'.
Your output: Yes

Example 2:
Question: Is the word in this image 'Hello'?
Answer: The word in the image does not say that.
Your output: No

Example 3:
Question: {question}
Answer: {prediction}
Your output: """,
    "points": """\
Compare a prediction with the ground truth of a question and say how correct it is, from 0.0 (entirely wrong) to 1.0 \
(entirely right) in steps of 0.1. <AND> in the ground truth means that the prediction has to contain all the parts \
that it joins; <OR> means that any one of the parts is enough. Just complete the last space of the correctness score.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
What is y in the equation? | -2 <AND> -7 | y = 4 | 0.0
What is y in the equation? | -2 <AND> -7 | y = -2 | 0.5
What is y in the equation? | -2 <AND> -7 | y = -2 or y = 7 | 0.5
What is y in the equation? | -2 <AND> -7 | y = -2 or y = -7 | 1.0
Which month is the hottest? | July <OR> the seventh month | It is August. | 0.0
Which month is the hottest? | July <OR> the seventh month | The seventh one, it seems. | 1.0
Why is the sign funny? | It forbids signs, and it is a sign itself. | It is a sign about signs. | 0.4

{question} | {answer} | {prediction} | """,
}


@dataclass
class Endpoint:
    """An OpenAI-compatible chat endpoint.

    Attributes:
        url: Address up to and including ``/v1``.
        model: Name of the judge model.
        key: Bearer token; empty for none.
        max_tokens: Longest reply in tokens.
        attempts: Maximum number of requests to an endpoint that is busy or out of reach.
        wait: Function that waits for a number of seconds between attempts.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    max_tokens: int = 16
    attempts: int = 6
    wait: Callable[[float], None] = time.sleep

    def __call__(self, prompt: str, temperature: float) -> tuple[str, dict[str, int]]:
        """Return the reply and the number of tokens of prompt and reply.

        Raises:
            ValueError: The endpoint rejects the request, or is out of reach after all attempts.
        """
        reason = ""
        for attempt in range(self.attempts):
            if attempt:
                self.wait(min(60.0, 2.0**attempt))
            try:
                return self._ask(prompt, temperature)
            except HTTPError as error:
                reason = f"HTTP {error.code}"
                error.close()
                if error.code not in (408, 409, 429) and error.code < 500:
                    break
            except (URLError, TimeoutError, ConnectionError) as error:
                reason = str(getattr(error, "reason", error))
        raise ValueError(
            f"the judge at {self.url} does not answer ({reason}): check the URL, the model name {self.model!r} and the "
            "key; its earlier replies are kept"
        )

    def _ask(self, prompt: str, temperature: float) -> tuple[str, dict[str, int]]:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json", "User-Agent": "convllava"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        with urlopen(request, timeout=120) as response:
            return _read_reply(response.read(), self.url)


def _read_reply(data: bytes, url: str) -> tuple[str, dict[str, int]]:
    try:
        content = json.loads(data)
        text = content["choices"][0]["message"]["content"] or ""
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the reply of {url} is not that of a chat endpoint: check the URL") from error
    usage = content.get("usage") or {}
    return text, {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}


@dataclass
class Cost:
    """Number of requests to a judge, of cached replies, and of tokens."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge:
    """Asks a judge model, caches its replies and parses them.

    Args:
        endpoint: Function from (prompt, temperature) to (reply, token counts).
        name: Name of the judge model.
        cache: JSONL file with earlier replies; None for no cache.
        prompts: Folder with files that replace the built-in prompts.
    """

    def __init__(
        self,
        endpoint: Callable[[str, float], tuple[str, dict[str, int]]],
        name: str,
        cache: Path | None = None,
        prompts: Path | None = None,
    ) -> None:
        self._endpoint, self._name, self._cache_path = endpoint, name, cache
        self._prompts = _read_prompts(prompts)
        self._replies = _read_cache(cache)
        self.cost = Cost()

    def judge(
        self, benchmark: Benchmark, predictions: Sequence[Prediction], scoring: Scoring
    ) -> tuple[list[Prediction], dict[str, Any]]:
        """Return predictions with judgments where the rules extract no answer, and the score's entry on the judge."""
        before = asdict(self.cost)
        judged = [self._judged(benchmark, prediction, scoring) for prediction in predictions]
        digest = hashlib.sha256(self._prompts[benchmark.judge or "points"].encode()).hexdigest()[:16]
        spent = {name: value - before[name] for name, value in asdict(self.cost).items()}
        num_judged = sum(prediction.judgment is not None for prediction in judged)
        return judged, {"model": self._name, "prompt_sha256": digest, "judged": num_judged, **spent}

    def choice(self, question: str, options: dict[str, str], answer: str, scoring: Scoring) -> str:
        """Return the letter of the option that an answer means, or Z for none of them."""
        lines = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        prompt = self._fill("choice", question=question, options=lines, prediction=answer)
        for temperature in TEMPERATURES[:NUM_CHOICE_ATTEMPTS]:
            letter = extract_choice(self._ask(prompt, temperature), options, profile=scoring.profile)
            if letter is not None:
                return letter
        logger.warning("the judge names no option for %r: counted as a refusal", answer[:80])
        return REFUSED  # VLMEvalKit draws a random letter here, which would make figures depend on chance

    def yes_no(self, question: str, answer: str, scoring: Scoring) -> str:
        """Return "Yes", "No" or "Unknown"."""
        prompt = self._fill("yes_no", question=question, prediction=answer)
        for temperature in TEMPERATURES:
            reply = extract_yes_no(self._ask(prompt, temperature), profile=scoring.profile)
            if reply != UNKNOWN:
                return reply
        return UNKNOWN

    def points(self, question: str, truth: str, answer: str) -> float:
        """Return points from 0 to 1; 0 if no reply is a bare number."""
        marked = truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        prompt = self._fill("points", question=question, answer=marked, prediction=answer)
        return read_points(self._ask(prompt, temperature) for temperature in TEMPERATURES)

    def _judged(self, benchmark: Benchmark, prediction: Prediction, scoring: Scoring) -> Prediction:
        if prediction.error is not None:
            return prediction
        row, question = prediction.row, str(prediction.row["question"])
        judgment: str | float
        if benchmark.judge == "points":
            judgment = self.points(question, str(row["answer"]), prediction.text)
        elif benchmark.verdict(prediction, scoring).resolved:
            return prediction
        elif benchmark.judge == "yes_no":
            judgment = self.yes_no(question, prediction.text, scoring)
        else:
            options = benchmark.choices(row) if isinstance(benchmark, ChoiceBenchmark) else options_of(row)
            judgment = self.choice(question, options, prediction.text, scoring)
        return replace(prediction, judgment=judgment)

    def _fill(self, name: str, **values: str) -> str:
        # In one pass and not with str.format: questions and answers may contain braces.
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), self._prompts[name])

    def _ask(self, prompt: str, temperature: float) -> str:
        key = hashlib.sha256(f"{self._name}\n{temperature}\n{prompt}".encode()).hexdigest()
        if key in self._replies:
            self.cost.cached += 1
            return self._replies[key]
        reply, usage = self._endpoint(prompt, temperature)
        self.cost.requests += 1
        self.cost.prompt_tokens += usage.get("prompt_tokens", 0)
        self.cost.completion_tokens += usage.get("completion_tokens", 0)
        self._replies[key] = reply
        if self._cache_path is not None:
            self._cache_path.parent.mkdir(parents=True, exist_ok=True)
            with self._cache_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
        return reply


def read_points(replies: Iterable[str]) -> float:
    """Return the first reply that is a bare number from 0 to 1; 0 if there is none."""
    for reply in replies:
        try:
            points = float(reply)
        except ValueError:
            continue
        if not math.isnan(points) and 0 <= points <= 1:
            return points
    return 0.0


def _read_cache(path: Path | None) -> dict[str, str]:
    replies: dict[str, str] = {}
    if path is None or not path.is_file():
        return replies
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            entry = json.loads(line)
            replies[entry["key"]] = entry["reply"]
        except (ValueError, KeyError, TypeError):
            continue  # an incomplete line: the request is sent again
    return replies


def _read_prompts(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return dict(PROMPTS)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: it should hold {', '.join(f'{name}.txt' for name in PROMPTS)}")
    paths = {name: folder / f"{name}.txt" for name in PROMPTS}
    return {name: path.read_text(encoding="utf-8") if path.is_file() else PROMPTS[name] for name, path in paths.items()}


@dataclass(frozen=True)
class JudgeSettings:
    """Settings of a judge model.

    Attributes:
        url: Address of an OpenAI-compatible endpoint, up to and including ``/v1``; None for no judge.
        model: Name of the judge model.
        prompts: Folder with prompts that replace the built-in ones.
    """

    url: str | None = None
    model: str | None = None
    prompts: Path | None = None

    def open(self, folder: Path) -> Judge | None:
        """Return the judge, or None if none is set; its replies are cached in ``folder``.

        Raises:
            ValueError: Only one of URL and model is set.
        """
        if self.url is None and self.model is None:
            return None
        if self.url is None or self.model is None:
            raise ValueError("a judge needs both --judge-url and --judge-model")
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        return Judge(Endpoint(self.url, self.model, key), self.model, folder / "judge.jsonl", self.prompts)
