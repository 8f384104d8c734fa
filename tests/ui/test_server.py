"""Answers of the web application: those of `tc.simulate`, to pages of this computer only."""

import csv
import io
import json
import random
import subprocess
import sys

import pytest

import tensorcast as tc

from .conftest import application

DENSE = {"model": "qwen3-0.6b", "hw": "h100-sxm"}
KINDS = [
    {"model": "deepseek-v3", "hw": "h200-sxm", "tp": 8, "ep": 8, "batch": 64, "layers": 5, "mtp": 1, "quant": "w8a8"},
    {"model": "qwen3-0.6b", "hw": "h100-sxm", "phase": "train", "batch": 8, "dp": 4, "zero": 1},
    {"model": "qwen3-0.6b", "hw": "ascend-910b", "pp": 2, "runtime": "eager", "overlap": "streams"},
    {"model": "qwen3-vl-8b", "hw": "h100", "image": "448x448", "input_len": 200},
    {"model": "flux.1-dev", "hw": "h100-sxm", "image": "512x512", "steps": 4},
]


def asked(client, options, more="", view=""):
    return client.post("/answer", json={"options": options, "more": more, "view": view}).json()


def figures(answer) -> dict:
    return {figure["name"]: figure["value"] for figure in answer["figures"]}


def expected(estimate) -> dict:
    memory = {name: estimate.memory[name] for name in ("total_bytes", "capacity_bytes", "max_batch", "max_context")}
    return {name: value for name, value in {**estimate.metrics, **memory}.items() if value is not None}


def test_random_positions_of_the_sliders_give_the_figures_of_simulate(client):
    picked, refused = random.Random(11), 0
    stops = {
        "tp": (1, 2, 3), "pp": (1, 2, 4), "batch": (1, 2, 3, 8, 48, 256),
        "input_len": (16, 96, 1024, 6144, 65536), "output_len": (1, 12, 256), "mtp": (0,), "chunk": (512, 2048),
        "concurrency": (4, 32), "gpu_memory_utilization": (0.5, 0.9),
    }  # fmt: skip
    for _ in range(20):
        options = {name: picked.choice(stops[name]) for name in picked.sample(sorted(stops), 5)}
        answer = asked(client, {**DENSE, **{name: str(value) for name, value in options.items()}})
        try:
            truth = tc.simulate(**DENSE, **options, custom_dir=False)
        except tc.errors.TensorcastError as error:
            assert answer == {"error": str(error)}
            refused += 1
            continue
        assert figures(answer) == expected(truth)
        assert answer["fits"] == truth.memory["fits"]
        assert answer["command"].startswith("tensorcast simulate --model qwen3-0.6b --hw h100-sxm")
    assert 0 < refused < 20


def test_the_answer_says_what_was_used_and_draws_the_phase_asked_for(client):
    answer = asked(client, {**DENSE, "tp": "2"}, view="prefill")
    assert answer["used"]["tp"] == "2"
    assert answer["used"]["input_len"] == "4096"
    assert "chunk" not in answer["used"]  # 0 stands for none
    assert answer["phases"] == ["prefill", "decode"]
    assert answer["view"] == "prefill"
    assert asked(client, DENSE, view="denoise")["view"] == "decode"
    assert set(answer["charts"]) == {"memory", "bounds", "treemap", "roofline", "communication"}
    assert answer["charts"]["treemap"] != asked(client, {**DENSE, "tp": "2"})["charts"]["treemap"]


@pytest.mark.parametrize("options", KINDS)
def test_models_of_all_kinds(client, options):
    answer = asked(client, {name: str(value) for name, value in options.items()})
    assert figures(answer) == expected(tc.simulate(**options, custom_dir=False))
    assert answer["view"] in answer["phases"]
    labels = [figure["label"] for figure in answer["figures"]]
    assert len(set(labels)) == len(labels) and not any(label.endswith(" per") or "_" in label for label in labels)


def test_a_model_of_ones_own_is_named_by_its_path(client, tmp_path):
    config = {"architectures": ["BertModel"], "model_type": "bert", "num_hidden_layers": 2, "hidden_size": 64,
              "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99}  # fmt: skip
    path = tmp_path / "<img src=x>" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(config))
    options = {"hw": "l40s", "batch": 8, "input_len": 128}
    answer = asked(client, {"model": str(path), **{name: str(value) for name, value in options.items()}})
    assert figures(answer) == expected(tc.simulate(str(path), **options, custom_dir=False))
    assert "requests_per_s" in figures(answer)
    assert "<img src=x> on 1 × l40s" in answer["title"]


def test_what_is_refused_is_one_line(client):
    unknown = asked(client, {"model": "qwen3-0.6", "hw": "h100-sxm"})["error"]
    assert unknown.startswith("unknown model 'qwen3-0.6'; nearest: qwen3-0.6b")
    assert asked(client, {"model": "qwen3-0.6b"})["error"] == "--hw is missing; `--help` lists what can be given"
    assert "\n" not in asked(client, {"model": "a\nb", "hw": "h100"})["error"]
    script = asked(client, {"model": "<script>alert(1)</script>", "hw": "h100"})["error"]
    assert "<script>alert(1)</script>" in script  # text: the page shows it as such


def test_a_model_that_is_not_in_the_cache_is_traced_first(client, here, own_folder):
    answer = asked(client, DENSE)
    assert figures(answer) == expected(tc.simulate(**DENSE, custom_dir=False))
    assert here.asked == [{**DENSE, "custom_dir": False}]
    assert asked(client, {**DENSE, "batch": "7"})["fits"]
    assert len(here.asked) == 1  # another batch needs no other table
    assert here.wanted == [True]


def test_what_may_be_asked_next_is_expected(client, here):
    def expected(options, moved=""):
        client.post("/answer", json={"options": {**DENSE, **options}, "moved": moved})
        return [{name: each[name] for name in ("tp", "ep", "quant") if name in each} for each in here.expected]

    expected({})  # the model is traced before anything is moved
    assert expected({"batch": "2"}, "batch") == [{"tp": 2}, {"tp": 4}, {"ep": 2}, {"ep": 4}]
    assert expected({"tp": "2"})[:2] == [{"tp": 1}, {"tp": 4}]
    assert [each["tp"] for each in expected({"tp": "8"}, "tp")][:6] == [4, 16, 2, 32, 1, 64]
    assert [each.get("quant") for each in expected({"quant": "none"}, "quant")][:2] == ["auto", "w8a8"]
    assert len(expected({}, "no such control")) == 4


def test_work_that_had_to_be_traced_is_traced_ahead(client, here):
    def lengths(**options):
        body = {"options": {"model": "pixart-sigma", "hw": "h100-sxm", "layers": "1", **options}, "moved": "input_len"}
        client.post("/answer", json=body)
        return {each["input_len"] for each in here.expected if "tp" not in each and "ep" not in each}

    first = lengths(input_len="77")  # a length no other test has
    assert len(here.asked) == 1 and {64, 96, 128, 4096} <= first
    assert {64, 96, 128, 4096} <= lengths(input_len="77")  # known now, though nothing is traced


def test_a_client_that_has_left_is_not_waited_for(here, own_folder):
    from anyio.from_thread import start_blocking_portal

    body = json.dumps({"options": DENSE}).encode()
    headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/answer",
        "raw_path": b"/answer", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    told = [{"type": "http.request", "body": body}]

    async def receive():
        return told.pop() if told else {"type": "http.disconnect"}

    async def send(message):
        pass

    with start_blocking_portal() as portal:
        portal.call(application(here), scope, receive, send)
    assert here.wanted == [False]


def test_reports_are_those_of_simulate(client):
    body = {"options": {**DENSE, "batch": "2"}}
    truth = tc.simulate(**DENSE, batch=2, custom_dir=False).to_dict()
    found = client.post("/download/JSON", json=body)
    assert found.headers["content-disposition"] == 'attachment; filename="qwen3-0.6b-1x-h100-sxm.json"'
    assert found.json()["metrics"] == truth["metrics"]
    rows = list(csv.DictReader(io.StringIO(client.post("/download/CSV", json=body).text)))
    assert len(rows) == sum(len(phase["ops"]) for phase in truth["phases"].values())
    page = client.post("/download/HTML", json=body).text
    assert page.startswith("<!doctype html>") and truth["command"] in page
    assert "no report 'exe'" in client.post("/download/exe", json=body).json()["error"]
    wrong = {"options": {**DENSE, "tp": "7"}}
    assert "--tp 7" in client.post("/download/JSON", json=wrong).json()["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "localhost.evil.example"]
)
def test_a_rebound_name_is_refused(client, host):
    for path in ("/", "/ui/main.js", "/plotly.js"):
        assert client.get(path, headers={"Host": f"{host}:8765"}).status_code == 400
    found = client.post("/answer", json={"options": DENSE}, headers={"Host": host})
    assert found.status_code == 400 and "tokens" not in found.text


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765"])
def test_names_of_this_computer_are_not(client, host):
    assert client.get("/ui/main.js", headers={"Host": host}).status_code == 200


def test_what_another_site_can_send_is_refused(client):
    body = json.dumps({"options": DENSE})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"):
        assert client.post("/answer", content=body, headers={"Content-Type": kind}).status_code == 415
    plain = {"Content-Type": "application/json"}
    for site in ("cross-site", "same-site", "none"):
        assert client.post("/answer", content=body, headers={**plain, "Sec-Fetch-Site": site}).status_code == 403
    assert client.post("/answer", content=body, headers={**plain, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    for origin in ("http://evil", "http://127.0.0.1:9999", "null", ""):
        assert client.post("/answer", content=body, headers={**plain, "Origin": origin}).status_code == 403
    assert client.post("/answer", content=body, headers={**plain, "Origin": "http://127.0.0.1:8765"}).status_code == 200
    allowed = client.options("/answer", headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"})
    assert allowed.status_code == 405 and "access-control-allow-origin" not in allowed.headers
    assert client.get("/answer").status_code == 405


def test_large_and_strange_bodies_are_refused(client):
    plain = {"Content-Type": "application/json"}
    assert client.post("/answer", content=b" " * 70_000, headers=plain).status_code == 413
    assert client.post("/answer", content=iter([b"{}"]), headers=plain).status_code == 413  # no length told
    for body in ("", "[]", "{", '{"options": []}', '{"options": {"tp": 1}}', '{"strange": 1}', '{"more": 3}'):
        assert client.post("/answer", content=body, headers=plain).status_code == 422, body


@pytest.mark.parametrize("name", ["model", "hw", "config", "kernel", "image", "seq_lens"])
@pytest.mark.parametrize("text", ["\0", "\ud800", "\u202e/x", "x" * 5000])
def test_texts_that_no_file_or_name_can_have_are_refused(client, name, text):
    body = json.dumps({"options": {**DENSE, name: text}})
    answer = client.post("/answer", content=body, headers={"Content-Type": "application/json"}).json()
    assert answer["error"] and "a bug of ours" not in answer["error"]


def test_the_page_lets_nothing_foreign_in(client):
    found = client.get("/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert "http" not in policy
    assert 'src="http' not in found.text and 'href="http' not in found.text
    for path in ("/../pyproject.toml", "/ui/../../pyproject.toml", "/ui/..%2fui.css", "/ui/ui.css", "/ui/"):
        assert client.get(path).status_code == 404
    assert client.get("/docs").status_code == 404


def test_an_answer_given_up_at_the_end_is_no_traceback():
    script = """
import os, signal, socket, threading, urllib.request
from fastapi import FastAPI
from tensorcast.ui.server import serve
app, never = FastAPI(), threading.Event()
@app.get("/")
def late():
    os.kill(os.getpid(), signal.SIGINT)
    never.wait(5)
listening = socket.create_server(("127.0.0.1", 0))
address = f"http://127.0.0.1:{listening.getsockname()[1]}"
def ask():
    try:
        urllib.request.urlopen(address)
    except OSError:
        pass
threading.Thread(target=ask, daemon=True).start()
try:
    serve(app, listening)
except KeyboardInterrupt:
    os._exit(0)
os._exit(1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_script_of_ones_own_takes_the_place_of_ours(client, own_folder):
    ours = client.get("/ui/pins.js")
    assert "compare" in ours.text and ours.headers["cache-control"] == "no-cache"
    (own_folder / "reports" / "ui").mkdir(parents=True)
    (own_folder / "reports" / "ui" / "main.js").write_text("// mine")
    assert client.get("/ui/main.js").text == "// mine"
    assert client.get("/ui/pins.js").text == ours.text


@pytest.mark.nightly
def test_a_thousand_answers_leave_nothing_behind(client):
    from resource import RUSAGE_SELF, getrusage

    picked = random.Random(3)

    def answers(count):
        for _ in range(count):
            asked(
                client, {**DENSE, "batch": str(picked.randrange(1, 500)), "input_len": str(picked.randrange(2, 9000))}
            )
        return getrusage(RUSAGE_SELF).ru_maxrss * 1024

    before = answers(100)
    assert answers(1000) - before < 16 * 2**20
