"""/openapi.json: what it says is there is there, answers as it says, and nothing else is."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pagedcore.server.app import application
from pagedcore.server.openapi import document, operations
from pagedcore.server.settings import Settings
from pagedcore.server.state import State

from .conftest import MODEL, Server

PACKAGING = Path(__file__).parents[3] / "packaging" / "server"


def of_all(keys: bool = False, *, page: bool = True) -> Any:
    app: Any = application(State([], Settings(page=page)))
    return document(keys, operations(app.routes))


def test_it_names_every_route_and_no_other() -> None:
    app: Any = application(State([], Settings()))
    routes = {(route.path.replace(":path", ""), method.lower()) for route in app.routes for method in route.methods}
    named = {(path, method) for path, item in of_all()["paths"].items() for method in item}
    files = {path for path, _ in routes if path == "/" or path.startswith("/page/")}
    assert {(path, method) for path, method in routes if path not in files and method != "head"} == named
    assert of_all(True)["security"] and "security" not in of_all()
    assert "/snapshot" in of_all()["paths"] and "/snapshot" not in of_all(page=False)["paths"]
    unknown = document(False, [("/new", "post")])["paths"]["/new"]["post"]
    assert {"200", "400", "500"} <= set(unknown["responses"])


def test_answers_hold_what_it_promises(server: Server) -> None:
    """Of each operation a good call and a bad one, by the schemas of the served document."""
    reply = server.send("GET", "/openapi.json")
    assert reply.status == 200 and reply.json == of_all()
    talk = [{"role": "user", "content": "Hi"}]
    good: dict[str, Any] = {
        "/v1/completions": {"prompt": "a", "max_tokens": 1},
        "/v1/chat/completions": {"messages": talk, "max_tokens": 1},
        "/v1/responses": {"input": "a", "max_output_tokens": 1},
        "/v1/messages": {"model": MODEL, "messages": talk, "max_tokens": 1},
        "/v1/messages/count_tokens": {"model": MODEL, "messages": talk},
        "/tokenize": {"prompt": "a"},
        "/detokenize": {"tokens": [1]},
        "/score": {"text_1": "a", "text_2": "b"},
        "/v1/score": {"text_1": "a", "text_2": "b"},
        "/v1/embeddings": {"input": "a"},
        "/rerank": {"query": "a", "documents": ["b"]},
        "/v1/rerank": {"query": "a", "documents": ["b"]},
    }
    for path, item in reply.json["paths"].items():
        for method, operation in item.items():
            there = path.replace("{model}", MODEL)
            if "content" not in operation["responses"]["200"]:
                continue  # nothing is known of it but its statuses
            found = server.post(there, good[path]) if method == "post" else server.send("GET", there)
            assert found.status == 200, (path, found)
            content = operation["responses"]["200"]["content"]
            kind = found.headers["content-type"].partition(";")[0]
            assert kind in content, path
            if kind == "application/json":
                assert set(content[kind]["schema"]["required"]) <= set(found.json), path
            if method == "post":
                assert set(good[path]) <= set(
                    operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
                )
                assert server.post(there, {"model": 5}).status == 400
                assert "400" in operation["responses"] and "429" in operation["responses"]


@pytest.mark.parametrize(
    "path", sorted(p for p, item in of_all()["paths"].items() if "requestBody" in item.get("post", {}))
)
def test_every_field_is_looked_at(server: Server, path: str) -> None:
    """A field that the document bounds is refused beyond its bounds, by its name."""
    body = of_all()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = {name: schema for name, schema in body["properties"].items()}
    base: dict[str, Any] = {"max_tokens": 1, "model": MODEL}
    base |= {"prompt": "a"} if path in ("/v1/completions", "/tokenize") else {}
    base |= {"messages": [{"role": "user", "content": "Hi"}]} if "messages" in body["required"] else {}
    base |= {"input": "a"} if path in ("/v1/responses", "/v1/embeddings") else {}
    base |= {"query": "a", "documents": ["b"]} if path.endswith("/rerank") else {}
    base |= {"text_1": "a", "text_2": "b"} if "text_1" in fields else {}
    base |= {"logprobs": True} if path == "/v1/chat/completions" else {}  # others say how they are written
    base |= {"tokens": [1]} if path == "/detokenize" else {}
    skipped = {"user", "metadata"}  # taken, and used for nothing
    if path == "/tokenize":
        skipped |= {"tools", "tool_choice", "chat_template", "chat_template_kwargs"}  # of conversations
        skipped |= {"add_generation_prompt", "continue_final_message", "parallel_tool_calls"}
    for name, schema in fields.items():
        if name in skipped or name in ("tool_choice", "parallel_tool_calls", "early_stopping", "length_penalty"):
            continue
        inner = schema.get("anyOf", [schema])[0]
        bad: list[Any] = [{"not": "this"}] if inner.get("type") != "object" else [[1]]
        if "maximum" in inner and inner["maximum"] < 2**63:
            bad.append(inner["maximum"] + 1)
        if "minimum" in inner:
            bad.append(inner["minimum"] - 1)
        for value in bad:
            reply = server.post(path, {**base, name: value})
            assert reply.status in (400, 404), (name, value, reply)
            assert name in json.dumps(reply.json), (name, value, reply)


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = (PACKAGING / "pagedcore.service").read_text()
    assert "/opt/pagedcore/bin/pagedcore" in unit
    copy = tmp_path / "pagedcore.service"
    copy.write_text(unit.replace("/opt/pagedcore/bin/pagedcore", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_units_command_starts_a_server(tmp_path: Path) -> None:
    """Its flags and its file, with another model and port, and credentials as systemd hands them over."""
    line = next(ln for ln in (PACKAGING / "pagedcore.service").read_text().splitlines() if ln.startswith("ExecStart="))
    (tmp_path / "keys").write_text("secret\n")
    config = (PACKAGING / "server.toml").read_text()
    (tmp_path / "server.toml").write_text(
        "\n".join(ln for ln in config.splitlines() if not ln.startswith(("model =", "port =", "kv-cache")))
    )
    program, *flags = line.removeprefix("ExecStart=").split()
    assert program.endswith("/pagedcore") and flags.pop(0) == "serve"
    known = {
        "/etc/pagedcore/server.toml": str(tmp_path / "server.toml"),
        "${CREDENTIALS_DIRECTORY}/keys": str(tmp_path / "keys"),
    }
    running = Server.start(*(known.get(flag, flag) for flag in flags), "--port", "0", "--num-blocks", "64")
    try:
        assert running.send("GET", "/v1/models").status == 401
        assert [m.id for m in running.openai(api_key="secret").models.list()] == ["model"]
    finally:
        assert running.stop() == 0
