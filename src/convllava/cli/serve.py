"""``convllava serve``: an HTTP server for one model."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Annotated[str, typer.Argument(help="nano, a checkpoint directory or a hub id.")] = "nano",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    name: Annotated[str | None, typer.Option(help="Under which the model is offered; by default as given.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the key that clients must send.")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Requests answered at a time.")] = 32,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; more are told to come again (429).")] = 64,
    request_timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 300.0,
    drain_timeout: Annotated[float, typer.Option(help="Seconds to finish after SIGTERM.")] = 30.0,
    max_body_mib: Annotated[int, typer.Option(help="Of one request, its images included.")] = 32,
    max_images: Annotated[int, typer.Option(help="Images in one request.")] = 16,
    prefix_cache_mib: Annotated[int, typer.Option(help="Memory for dialogues that may go on; 0 for none.")] = 128,
    static_kv_cache: Annotated[
        bool, typer.Option("--static-kv-cache", help="Allocate keys and values for all of --max-batch at once.")
    ] = False,
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Fetch images by http(s) URL, from public addresses.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Name under which clients may address the server; repeatable.")
    ] = None,
    image_aspect_ratio: opt.ImageAspectRatio = None,
    resolution: opt.Resolution = None,
    max_visual_tokens: opt.MaxVisualTokens = None,
    dtype: opt.Dtype = None,
    device: opt.Device = None,
    fast: opt.Fast = False,
    preprocessing: opt.Preprocessing = None,
) -> None:
    """Serve a model: OpenAI's chat completions at /v1, a page at /."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install 'convllava[serve]'") from error

    from .. import serve as serving
    from ..analysis import allows_auto
    from ..inference import Generator, load_pretrained

    settings = serving.Settings(
        model_name=name or model_name(model),
        api_key=read_key(api_key_env),
        max_batch=max_batch,
        max_queue=max_queue,
        request_timeout=request_timeout,
        drain_timeout=drain_timeout,
        max_body_bytes=max_body_mib << 20,
        max_images=max_images,
        prefix_cache_bytes=prefix_cache_mib << 20,
        remote_images=remote_images,
        allowed_hosts=hosts(host, allowed_host or []),
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listener = serving.bind(host, port)
    loaded, processor = load_pretrained(model, dtype=dtype, device=device, fast=fast, fallback_resolution=resolution)
    if image_aspect_ratio is None and resolution is None and allows_auto(loaded.config):
        settings = replace(settings, auto_resolution=True)
    set_defaults(processor.image_processor, image_aspect_ratio, resolution, max_visual_tokens, preprocessing)
    generator = Generator(
        loaded,
        processor,
        max_batch,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        static_cache=static_kv_cache,
    )
    app = serving.create_app(generator, settings)
    url = serving.address_of(listener)
    if host not in LOCAL_NAMES and settings.api_key is None:
        print(f"warning: anybody who reaches {url} may use it; --api-key-env asks for a key", file=sys.stderr)
    print(f"{settings.model_name} at {url} (page) and {url}/v1 (OpenAI's API); Ctrl+C ends it", flush=True)
    serving.run(app, listener, settings)


def model_name(source: str) -> str:
    """Return the name of a model that was given by name, id or directory."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def read_key(variable: str | None) -> str | None:
    """Return the key in an environment variable, so that it stands in no list of processes.

    Raises:
        ValueError: The variable is not set.
    """
    if variable is None:
        return None
    if not os.environ.get(variable, "").strip():
        raise ValueError(f"--api-key-env {variable}: the environment has no such variable, or it is empty")
    return os.environ[variable].strip()


def hosts(host: str, further: list[str]) -> tuple[str, ...]:
    """Return the names that requests may be addressed to; any, unless the server is this machine's own."""
    own = LOCAL_NAMES if host in LOCAL_NAMES else ()
    return tuple(name.lower() for name in (*own, *further))


def set_defaults(
    image_processor: object,
    image_aspect_ratio: str | None,
    resolution: int | None,
    max_visual_tokens: int | None,
    preprocessing: str | None = None,
) -> None:
    """Show images in another way than the checkpoint says, unless a request asks for its own.

    Raises:
        ValueError: The options contradict each other.
    """
    given = {
        "image_aspect_ratio": image_aspect_ratio,
        "resolution": resolution,
        "max_visual_tokens": max_visual_tokens,
        "preprocessing": preprocessing,
    }
    for name, value in given.items():
        if value is not None:
            setattr(image_processor, name, value)
    image_processor.resized_shape(64, 64)  # type: ignore[attr-defined]
