"""Metrics for Prometheus at ``GET /metrics``."""

from collections.abc import Callable
from typing import Any

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from ..inference import Answer

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own, since one process may run several servers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="convllava", registry=self.registry)
        PlatformCollector(registry=self.registry)
        new: dict[str, Any] = {"registry": self.registry, "namespace": "convllava"}
        self.requests = Counter("requests", "HTTP requests by route and status.", ["route", "status"], **new)
        self.canceled = Counter("canceled_requests", "Requests whose client disconnected before the end.", **new)
        self.running = Gauge("running_requests", "Requests that are decoded.", **new)
        self.waiting = Gauge("waiting_requests", "Requests that are prepared or queued.", **new)
        self.batch_size = Histogram("batch_size", "Sequences of each step.", buckets=_BATCHES, **new)
        self.visual_tokens = Counter("visual_tokens", "Visual tokens of answered requests.", **new)
        self.prompt_tokens = Counter("prompt_tokens", "Prompt tokens, including visual tokens.", **new)
        self.cached_tokens = Counter("cached_prompt_tokens", "Prompt tokens whose keys and values were reused.", **new)
        self.new_tokens = Counter("generated_tokens", "Tokens of answers.", **new)
        self.queue = Histogram("queue_seconds", "From submission to the start of computing.", buckets=_SECONDS, **new)
        self.encode = Histogram("encode_seconds", "Vision encoder and projector.", buckets=_SECONDS, **new)
        self.first_token = Histogram(
            "time_to_first_token_seconds", "From submission to the first token.", buckets=_SECONDS, **new
        )
        self.total = Histogram("request_seconds", "From submission to the last token.", buckets=_SECONDS, **new)
        self.rate = Histogram(
            "tokens_per_second",
            "Tokens per second of an answer after its first token.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            **new,
        )
        if torch.cuda.is_available():
            device_memory = Gauge("device_memory_bytes", "Memory of tensors on the device.", **new)
            device_memory.set_function(torch.cuda.memory_allocated)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Read the numbers of running and waiting requests at each scrape."""
        self.running.set_function(running)
        self.waiting.set_function(waiting)

    def count(self, answer: Answer) -> None:
        """Count a finished answer."""
        timings = answer.timings
        self.visual_tokens.inc(answer.num_image_tokens)
        self.prompt_tokens.inc(answer.num_prompt_tokens)
        self.cached_tokens.inc(answer.num_cached_tokens)
        self.new_tokens.inc(len(answer.token_ids))
        self.queue.observe(timings.queue_seconds)
        self.first_token.observe(timings.first_token_seconds)
        self.total.observe(timings.total_seconds)
        if timings.encode_seconds:
            self.encode.observe(timings.encode_seconds)
        writing = timings.total_seconds - timings.first_token_seconds
        if writing > 0 and len(answer.token_ids) > 1:
            self.rate.observe((len(answer.token_ids) - 1) / writing)
