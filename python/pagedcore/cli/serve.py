"""``pagedcore serve``: HTTP for the clients of OpenAI and Anthropic."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import InvalidArgument, Unsupported
from ..memory import parse_bytes
from .background_stderr import BackgroundStderr
from .common import Formatter, add_model_flags
from .config import take_config
from .served_models import MODEL_KEYS, models_to_serve

if TYPE_CHECKING:
    from ..server.settings import EventSettings, Settings

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore serve                                       at http://127.0.0.1:8000/v1, for openai and anthropic clients
  pagedcore serve -m YOUR_MODEL.gguf --served-model-name chat --port 9000
  PAGEDCORE_API_KEY=secret pagedcore serve --host 0.0.0.0 --ssl-certfile cert.pem --ssl-keyfile key.pem
  pagedcore serve -m YOUR_LARGE.gguf --add-model small=YOUR_SMALL.gguf --memory 12GiB
  pagedcore serve --config server.toml                  its keys are the flags' names: port = 9000

It says "ready" on stderr, in a line of JSON as everything, when it takes calls. SIGTERM and Ctrl-C end it when the
calls that are there have been answered, or after --drain-timeout seconds; a second one at once."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="HTTP for the clients of OpenAI and Anthropic",
        description="Serves models over HTTP, as OpenAI and Anthropic do. Needs pip install 'pagedcore[server]'.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--config", metavar="FILE", help="flags from a TOML file; those that are given win")
    where = parser.add_argument_group("socket")
    where.add_argument("--host", default="127.0.0.1", metavar="TEXT", help="address to listen on (default: 127.0.0.1)")
    where.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (default: 8000)")
    where.add_argument("--uds", metavar="PATH", help="a Unix socket, instead of host and port")
    where.add_argument("--ssl-certfile", metavar="PATH", help="certificate: serve https")
    where.add_argument("--ssl-keyfile", metavar="PATH", help="its key (default: in the certificate's file)")
    where.add_argument("--ssl-keyfile-password", metavar="TEXT", help="of that key; better in --config")
    where.add_argument("--ssl-ca-certs", metavar="PATH", help="clients must show a certificate signed by one of these")
    what = parser.add_argument_group("calls")
    what.add_argument(
        "--served-model-name",
        action="append",
        metavar="TEXT",
        help="of the model, in calls (repeat it); default: file's",
    )
    what.add_argument(
        "--add-model",
        action="append",
        metavar="NAME=PATH",
        help="serve this model too, under this name (repeat it); a table [models.NAME] in --config says more of one",
    )
    what.add_argument(
        "--memory",
        metavar="SIZE",
        help="of all models together, shared out among their KV caches (default: each its own)",
    )
    what.add_argument(
        "--api-key-file", metavar="PATH", help="API keys, one a line (default: PAGEDCORE_API_KEY, by commas; else none)"
    )
    what.add_argument("--cors-origin", action="append", metavar="TEXT", help="pages from there may call (repeat it)")
    what.add_argument("--chat-template", metavar="PATH", help="a Jinja template, instead of the model's")
    what.add_argument(
        "--tool-format",
        metavar="WORD",
        help="how the model writes tool calls: harmony, hermes, llama3, mistral, qwen, qwen3_coder (default: by its "
        "template)",
    )
    what.add_argument("--log-calls", action=argparse.BooleanOptionalAction, default=True, help="a line for each call")
    what.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True, help="a page at / that shows the engine at work"
    )
    told = parser.add_argument_group("what others are told")
    told.add_argument("--otlp-traces-endpoint", metavar="URL", help="collector of OpenTelemetry traces; needs [otel]")
    told.add_argument(
        "--kv-events-endpoint",
        metavar="URL",
        help="bind here and publish the prefix cache's news, as vLLM does; needs [events]",
    )
    told.add_argument("--kv-events-replay-endpoint", metavar="URL", help="bind here for those who missed some")
    told.add_argument("--kv-events-topic", default="", metavar="TEXT", help="of what is published (default: none)")
    told.add_argument(
        "--kv-events-buffer-steps", type=int, default=10_000, metavar="N", help="batches for replay (default: 10000)"
    )
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--max-body-size", default="8MiB", metavar="SIZE", help="of a call (default: 8MiB)")
    bounds.add_argument("--max-connections", type=int, default=4096, metavar="N", help="open at a time (default: 4096)")
    for flag, default, what_for in (
        ("header-timeout", 30.0, "for the headers of a call to come"),
        ("body-timeout", 60.0, "for its body to come"),
        ("write-timeout", 60.0, "in which a client reads nothing of its answer"),
        ("keep-alive", 75, "between two calls of a connection"),
        ("drain-timeout", 30, "for the calls that are there when the server is to end"),
    ):
        text = f"seconds {what_for} (default: {default:g})"
        bounds.add_argument(f"--{flag}", type=type(default), default=default, metavar="X", help=text)
    bounds.add_argument("--request-timeout", type=float, metavar="X", help="seconds for an answer (default: any)")
    add_model_flags(parser)
    options = {info.name for info in _core.options_of("EngineConfig")} - {"cache_events"}
    per_model = {*MODEL_KEYS, *options}
    parser.set_defaults(run=_run, models=None, take_config=partial(take_config, parser, per_model=per_model))


def _run(arguments: argparse.Namespace) -> int:
    BackgroundStderr.install()
    settings = _settings(arguments)
    if settings.kv_events is not None:
        arguments.cache_events = _CACHE_EVENTS
    models = models_to_serve(arguments)
    if settings.kv_events is not None and len(models) > 1:
        raise InvalidArgument("--kv-events-endpoint is for a server of one model: routers could not tell them apart")
    try:
        from ..server.run import serve
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"serving needs {error.name}, which is not installed: pip install 'pagedcore[server]'"
        ) from None
    return serve(models, settings)


def _settings(arguments: argparse.Namespace) -> Settings:
    try:
        from ..server.access import read_keys
        from ..server.settings import Settings
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"serving needs {error.name}, which is not installed: pip install 'pagedcore[server]'"
        ) from None
    if not 0 <= arguments.port < 65536:
        raise InvalidArgument(f"--port {arguments.port} must be in [0, 65535]")
    same = {name: getattr(arguments, name) for name in _SAME}
    for name, value in same.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "port" and not 0 < value < 1e9:
            raise InvalidArgument(f"--{name.replace('_', '-')} {value:g} must be above 0 and below 10^9")
    return Settings(
        kv_events=_events(arguments),
        api_keys=read_keys(arguments.api_key_file),
        cors_origins=tuple(arguments.cors_origin or ()),
        max_body_size=parse_bytes(arguments.max_body_size),
        **same,
    )


def _events(arguments: argparse.Namespace) -> EventSettings | None:
    from ..server.settings import EventSettings

    given = {name: getattr(arguments, f"kv_events_{name}") for name in ("replay_endpoint", "topic", "buffer_steps")}
    if not 1 <= arguments.kv_events_buffer_steps <= 10**6:
        raise InvalidArgument(f"--kv-events-buffer-steps {arguments.kv_events_buffer_steps} must be in [1, 1000000]")
    if arguments.kv_events_endpoint is not None:
        medium = "CPU" if arguments.device in (None, "cpu") else "GPU"
        return EventSettings(endpoint=arguments.kv_events_endpoint, medium=medium, **given)
    if given["replay_endpoint"] is not None:
        raise InvalidArgument("--kv-events-replay-endpoint needs --kv-events-endpoint")
    return None


_SAME = (
    *("host", "port", "uds", "ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    *("log_calls", "page", "max_connections", "header_timeout", "body_timeout", "write_timeout", "keep_alive"),
    *("drain_timeout", "request_timeout", "otlp_traces_endpoint"),
)
_CACHE_EVENTS = 65536  # that wait for those who publish them; beyond, all are said to be gone
