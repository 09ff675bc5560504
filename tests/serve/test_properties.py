"""Whatever fits the OpenAPI schema, and much that does not, gets an answer below 500."""

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from serve.conftest import Running

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

EXAMPLES = 25


@pytest.fixture(scope="module")
def quick(loaded: Any) -> Any:
    """A server that refuses long answers quickly."""
    from serve.conftest import running

    from convllava.inference import Generator

    with running(Generator(*loaded, 4), request_timeout=20.0) as server:
        yield server


@pytest.fixture(scope="module")
def api(quick: Running) -> Any:
    return schemathesis.openapi.from_dict(quick.get("/openapi.json").json)


def operations(api: Any) -> dict[str, Any]:
    found = {}
    for result in api.get_all_operations():
        operation = result.ok()
        found[operation.label] = operation
    return found


@pytest.mark.parametrize(
    "label",
    [
        "POST /v1/chat/completions",
        "POST /v1/estimate",
        "GET /v1/models",
        "GET /v1/models/{name}",
        "GET /health",
        "GET /health/live",
        "GET /metrics",
    ],
)
def test_no_operation_fails(api: Any, quick: Running, label: str) -> None:
    operation = operations(api)[label]

    @hypothesis.settings(
        max_examples=EXAMPLES if label.startswith("POST") else 5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def check(case: Any) -> None:
        if isinstance(case.body, dict) and "messages" in case.body:
            case.body["max_tokens"] = min(case.body.get("max_tokens") or 2, 2)
            case.body.pop("max_completion_tokens", None)
        if isinstance(case.body, dict) and "input" in case.body:
            case.body["max_output_tokens"] = min(case.body.get("max_output_tokens") or 2, 2)
        # a dialogue can fit the schema and still make no sense: nothing to answer, too long for the context
        case.call_and_validate(base_url=quick.url, excluded_checks=[positive_data_acceptance])

    check()


def test_all_operations_are_covered(api: Any) -> None:
    assert len(operations(api)) == 8


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    changes=st.dictionaries(
        st.sampled_from(
            "messages model stream stop seed n temperature resolution stream_options top_k min_p repetition_penalty "
            "no_repeat_ngram_size no_repeat_ngram_window stop_on_repetition logprobs top_logprobs response_format top_p"
            "".split()
        ),
        json_values,
        max_size=3,
    )
)
def test_no_value_of_any_type_fails(server: Running, changes: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 2} | changes
    reply = server.post("/v1/chat/completions", json.dumps(body).encode())
    assert reply.status in (200, 400, 404), (body, reply.body)
    if reply.status != 200:
        assert reply.error["message"].isprintable()
