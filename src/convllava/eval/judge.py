"""A language model as judge: of MM-Vet's answers, and of choices that the rules cannot read.

Off unless somebody asks for it. Prompts have the structure that the kits document, in words of our own; a folder with
``choice.txt``, ``yes_no.txt`` and ``points.txt`` replaces them.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .benchmarks import Benchmark, Record, Scoring
from .metrics import extract_choice, extract_yes_no
from .metrics.choice import REFUSED
from .metrics.yes_no import UNKNOWN
from .prompts import options_of

logger = logging.getLogger(__name__)

_PLACE = re.compile(r"\{(\w+)\}")

TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of the attempts to get a bare number, or a plain yes or no (VLMEvalKit)."""
CHOICE_ATTEMPTS = 3

PROMPTS = {
    "choice": """\
You match an answer to the options of a single-choice question. You are given the question, its options and the \
answer that somebody gave. Decide which option means the same as the answer. If the meaning of every option differs \
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
You read the answer that somebody gave to a question which wants a yes or a no. Reply Yes if the answer says yes, No \
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
        url: Up to and including ``/v1``.
        model: Name of the judging model.
        key: Sent as a bearer token; empty for none.
        max_tokens: Longest reply.
        attempts: Requests before giving up on an endpoint that is busy or out of reach.
        wait: Called with seconds between attempts.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    max_tokens: int = 16
    attempts: int = 6
    wait: Callable[[float], None] | None = None

    def __call__(self, prompt: str, temperature: float) -> tuple[str, dict[str, int]]:
        """Return the reply and the tokens it cost.

        Raises:
            ValueError: The endpoint refuses the request, or is out of reach after all attempts.
        """
        from time import sleep
        from urllib.error import HTTPError, URLError

        reason = ""
        for attempt in range(self.attempts):
            if attempt:
                (self.wait or sleep)(min(60.0, 2.0**attempt))
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
            "key; what it has said so far is kept"
        )

    def _ask(self, prompt: str, temperature: float) -> tuple[str, dict[str, int]]:
        from urllib.request import Request, urlopen

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
        raise ValueError(f"{url} answers, but not as a chat endpoint does: is the URL right?") from error
    usage = content.get("usage") or {}
    return text, {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}


@dataclass
class Cost:
    """What a judge was asked and what it charged."""

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge:
    """Asks an endpoint, remembers its replies, and reads them.

    Args:
        endpoint: Called with (prompt, temperature), returns (reply, usage).
        name: Of the judging model, for the score.
        cache: JSON-lines file with what was said before; None keeps nothing.
        prompts: Folder with files that replace prompts.
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
        self._said = _read_cache(cache)
        self.cost = Cost()

    def judge(
        self, benchmark: Benchmark, records: Sequence[Record], scoring: Scoring
    ) -> tuple[list[Record], dict[str, Any]]:
        """Return the records with judgments where the rules alone cannot tell, and what to say of the judge."""
        before = replace(self.cost)
        judged = [self._judged(benchmark, record, scoring) for record in records]
        digest = hashlib.sha256(self._prompts[benchmark.judge or "points"].encode()).hexdigest()[:16]
        spent = {name: getattr(self.cost, name) - getattr(before, name) for name in vars(self.cost)}
        asked = sum(record.judgment is not None for record in judged)
        return judged, {"model": self._name, "prompt_sha256": digest, "judged": asked, **spent}

    def choice(self, question: str, options: dict[str, str], prediction: str, scoring: Scoring) -> str:
        """Return the letter of the option that an answer means, Z for none of them."""
        listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
        prompt = self._fill("choice", question=question, options=listed, prediction=prediction)
        for attempt in range(CHOICE_ATTEMPTS):
            letter = extract_choice(self._ask(prompt, TEMPERATURES[attempt]), options, profile=scoring.profile)
            if letter is not None:
                return letter
        logger.warning("the judge names no option for %r: counted as a refusal", prediction[:80])
        return REFUSED  # the kit draws a letter here; a figure should not depend on luck

    def yes_no(self, question: str, prediction: str, scoring: Scoring) -> str:
        """Return Yes, No or Unknown."""
        prompt = self._fill("yes_no", question=question, prediction=prediction)
        for temperature in TEMPERATURES:
            answer = extract_yes_no(self._ask(prompt, temperature), profile=scoring.profile)
            if answer != UNKNOWN:
                return answer
        return UNKNOWN

    def points(self, question: str, answer: str, prediction: str) -> float:
        """Return from 0 to 1; 0 if no attempt brings a bare number."""
        marked = answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        prompt = self._fill("points", question=question, answer=marked, prediction=prediction)
        return read_points(self._ask(prompt, temperature) for temperature in TEMPERATURES)

    def _judged(self, benchmark: Benchmark, record: Record, scoring: Scoring) -> Record:
        row = record.row
        if record.error is not None:
            return record
        if benchmark.judge == "points":
            return replace(record, judgment=self.points(str(row["question"]), str(row["answer"]), record.prediction))
        if benchmark.verdict(record, scoring).resolved:
            return record
        if benchmark.judge == "yes_no":
            return replace(record, judgment=self.yes_no(str(row["question"]), record.prediction, scoring))
        options = getattr(benchmark, "choices", options_of)(row)
        return replace(record, judgment=self.choice(str(row["question"]), options, record.prediction, scoring))

    def _fill(self, name: str, **values: str) -> str:
        # in one pass, and not by str.format: questions and answers may have braces of their own
        return _PLACE.sub(lambda found: values.get(found[1], found[0]), self._prompts[name])

    def _ask(self, prompt: str, temperature: float) -> str:
        key = hashlib.sha256(f"{self._name}\n{temperature}\n{prompt}".encode()).hexdigest()
        if key in self._said:
            self.cost.cached += 1
            return self._said[key]
        reply, usage = self._endpoint(prompt, temperature)
        self.cost.requests += 1
        self.cost.prompt_tokens += usage.get("prompt_tokens", 0)
        self.cost.completion_tokens += usage.get("completion_tokens", 0)
        self._said[key] = reply
        if self._cache_path is not None:
            self._cache_path.parent.mkdir(parents=True, exist_ok=True)
            with self._cache_path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
        return reply


def read_points(replies: Any) -> float:
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
    said: dict[str, str] = {}
    if path is None or not path.is_file():
        return said
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            entry = json.loads(line)
            said[entry["key"]] = entry["reply"]
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut off: it is asked again
    return said


def _read_prompts(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return dict(PROMPTS)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: it should hold {', '.join(f'{name}.txt' for name in PROMPTS)}")
    own = {name: (folder / f"{name}.txt") for name in PROMPTS}
    return {name: own[name].read_text(encoding="utf-8") if own[name].is_file() else PROMPTS[name] for name in PROMPTS}
