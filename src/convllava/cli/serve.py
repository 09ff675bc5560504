"""``convllava serve``: an HTTP server for one model."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..support import EscapedFormatter, require
from . import options as opt

if TYPE_CHECKING:
    from ..serve import Settings

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class AccessArguments:
    """Address of the server and its clients' access."""

    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of the machine's.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes any free one.")] = 8000
    name: Annotated[str | None, typer.Option(help="Model name that clients use; by default MODEL.")] = None
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the key that clients must send.")
    ] = None
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Host name that clients may use for the server; repeatable.")
    ] = None
    remote_images: Annotated[
        bool, typer.Option("--remote-images", help="Fetch images by http(s) URL, from public addresses only.")
    ] = False
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin of web pages that may use the API; * for any; repeatable."),
    ] = None
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Path under which a proxy publishes the server, such as /vision.")
    ] = ""


@dataclass(frozen=True)
class LimitArguments:
    """Limits of time and memory."""

    max_batch: Annotated[int, typer.Option(help="Maximum requests decoded at a time.")] = 32
    max_queue: Annotated[int, typer.Option(help="Maximum queued requests; further ones get HTTP 429.")] = 64
    request_timeout: Annotated[float, typer.Option(help="Seconds for one answer, waiting included.")] = 300.0
    drain_timeout: Annotated[float, typer.Option(help="Seconds to finish running requests after SIGTERM.")] = 30.0
    max_body_mib: Annotated[int, typer.Option(help="Maximum MiB of a request, its images included.")] = 32
    max_images: Annotated[int, typer.Option(help="Maximum images in a request.")] = 16
    prefix_cache_mib: Annotated[
        int, typer.Option(help="MiB of keys and values kept for dialogues that may continue; 0 keeps none.")
    ] = 128
    static_kv_cache: Annotated[
        bool, typer.Option("--static-kv-cache", help="Allocate keys and values for --max-batch requests at the start.")
    ] = False


@dataclass(frozen=True)
class ServedModelArguments(opt.DeviceArguments):
    """How the model is loaded."""

    fast: opt.Fast = False
    preprocessing: opt.Preprocessing = None


@opt.expand_settings
def serve(
    argument: opt.ModelArgument = None,
    model: opt.ModelOrNone = None,
    *,
    access: AccessArguments,
    limits: LimitArguments,
    images: opt.ImageArguments,
    loading: ServedModelArguments,
) -> None:
    """Serve a model: the OpenAI chat completions API at /v1, a chat page at /."""
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        require(package, extra="serve", purpose="servers")
    model = opt.one_model(argument, model, default="nano")
    opt.check_model(model)

    from .. import serve as serving
    from ..analysis import allows_auto
    from ..inference import Generator, load_pretrained, stage_warning

    settings = replace(server_settings(model, access, limits), image_options=images.options)
    handler = logging.StreamHandler()
    handler.setFormatter(EscapedFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    listener = serving.bind(access.host, access.port)
    loaded, processor = load_pretrained(
        model,
        dtype=loading.dtype,
        device=loading.device,
        fast=loading.fast,
        fallback_resolution=images.resolution,
        preprocessing=loading.preprocessing,
    )
    opt.warn(stage_warning(loaded))
    if images.image_aspect_ratio is None and images.resolution is None and allows_auto(loaded.config):
        settings = replace(settings, auto_resolution=True)
    generator = Generator(
        loaded,
        processor,
        settings.max_batch,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        static_cache=limits.static_kv_cache,
    )
    app = serving.create_app(generator, settings)
    url = serving.address_of(listener)
    if access.host not in LOCAL_NAMES and settings.api_key is None:
        opt.remark(f"warning: {url} answers without a key: pass --api-key-env NAME to require one")
    opt.say(f"{settings.model_name} at {url} (chat page) and {url}/v1 (OpenAI API); Ctrl+C stops it")
    serving.run(app, listener, settings)


def server_settings(model: str, access: AccessArguments, limits: LimitArguments) -> "Settings":
    """Return the settings of the server.

    Raises:
        ValueError: A value is out of range, or the key is missing in the environment.
    """
    from ..serve import Settings

    return Settings(
        model_name=access.name or model_name(model),
        api_key=read_key(access.api_key_env),
        max_batch=limits.max_batch,
        max_queue=limits.max_queue,
        request_timeout=limits.request_timeout,
        drain_timeout=limits.drain_timeout,
        max_body_bytes=limits.max_body_mib << 20,
        max_images=limits.max_images,
        prefix_cache_bytes=limits.prefix_cache_mib << 20,
        remote_images=access.remote_images,
        allowed_hosts=allowed_hosts(access),
        cors_origins=tuple(access.cors_origin or ()),
        root_path=access.root_path.rstrip("/"),
    )


def model_name(source: str) -> str:
    """Return the name of a model that was given by name, id or directory."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def read_key(variable: str | None) -> str | None:
    """Return the key in an environment variable; as an argument it would be visible in the list of processes.

    Raises:
        ValueError: The variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"--api-key-env {variable}: the environment variable {variable} is not set, or empty")
    return key


def allowed_hosts(access: AccessArguments) -> tuple[str, ...]:
    """Return the host names that requests may be addressed to; an empty tuple allows any.

    A server that listens at a local address allows local names, so that a web page cannot reach it through a name that
    resolves to this machine.
    """
    local = LOCAL_NAMES if access.host in LOCAL_NAMES else ()
    return tuple(name.lower() for name in (*local, *(access.allowed_host or ())))
