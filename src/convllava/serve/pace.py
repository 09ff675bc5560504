"""How fast this server is on this machine, learned from its own answers."""

from ..inference import Answer

WEIGHT = 0.1
"""Of the latest answer in the running averages."""


class Pace:
    """Running averages of what encoding, reading and writing take."""

    def __init__(self) -> None:
        self._averages: dict[str, float] = {}

    def learn(self, answer: Answer) -> None:
        """Take an answer into the averages."""
        timings = answer.timings
        pixels = sum(height * width for height, width in answer.image_sizes)
        num_new, num_read = len(answer.token_ids), answer.num_prompt_tokens - answer.num_cached_tokens
        reading = timings.first_token_seconds - timings.queue_seconds - timings.encode_seconds
        self._add("per_prompt_token", reading / max(1, num_read))
        self._add("new_tokens", num_new)
        self._add("request", timings.total_seconds - timings.queue_seconds)
        if pixels and timings.encode_seconds and not answer.num_cached_tokens:
            self._add("per_pixel", timings.encode_seconds / pixels)
        if num_new > 1:
            self._add("per_new_token", (timings.total_seconds - timings.first_token_seconds) / (num_new - 1))

    def seconds(self, num_pixels: int, num_prompt_tokens: int) -> float | None:
        """Estimate how long a request takes once its turn comes; None before the first answer."""
        known = self._averages
        if not {"per_prompt_token", "new_tokens", "per_new_token"} <= known.keys():
            return None
        if num_pixels and "per_pixel" not in known:
            return None
        encoding = num_pixels * known.get("per_pixel", 0.0)
        return encoding + num_prompt_tokens * known["per_prompt_token"] + known["new_tokens"] * known["per_new_token"]

    def wait(self, ahead: int, max_batch: int) -> float:
        """Estimate how long a request waits behind so many others."""
        return ahead / max_batch * self._averages.get("request", 1.0)

    def _add(self, name: str, value: float) -> None:
        before = self._averages.get(name, value)
        self._averages[name] = before + WEIGHT * (value - before)
