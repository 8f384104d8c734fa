"""`tensorcast ui`: where it listens, and what it refuses."""

import socket

import pytest

from tensorcast.cli import ui


@pytest.fixture
def served(monkeypatch):
    """What would have been served: (application, socket, address to open)."""
    seen = []
    monkeypatch.setattr(ui, "run", lambda serve, app, listening, answers, opened: seen.append((app, listening, opened)))
    yield seen
    for _, listening, _ in seen:
        listening.close()


def test_it_listens_on_this_computer_only(run, served):
    code, out, err = run("ui", "--port", "0", "--model", "a&b c", "--hw", "h100")
    app, listening, opened = served[0]
    host, port = listening.getsockname()
    assert (code, err, host) == (0, "", "127.0.0.1")
    assert out.splitlines()[0] == opened == f"http://127.0.0.1:{port}/?model=a%26b+c&hw=h100"
    (hosts,) = [each.kwargs["allowed_hosts"] for each in app.user_middleware if "allowed_hosts" in each.kwargs]
    assert hosts == ["localhost", "127.0.0.1", "[::1]"]
    assert run("ui", "--port", "0", "--no-open")[0] == 0
    assert served[1][2] is None


def test_another_address_has_to_be_asked_for_and_is_told(run, served):
    code, _, err = run("ui", "--host", "0.0.0.0", "--port", "0", "--no-open")
    assert code == 0
    assert err == "note: anybody who reaches this computer's network can use the page\n"


def test_a_taken_port_is_one_line(run, served):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, err = run("ui", "--port", str(port), "--no-open")
    assert (code, out) == (2, "")
    assert err == (
        f"error: --host 127.0.0.1 --port {port}: Address already in use; give another, or --port 0 for any free one\n"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--port", "65536"), "--port 65536: at most 65535"),
        (("--port", "-1"), "--port: '-1' is not a whole number of at least 0"),
        (("--port", "http"), "--port: 'http' is not a whole number of at least 0"),
        (("--host", "no such host"), "--host no such host: no such address; give one of this computer's"),
        (("--host", "192.0.2.1", "--port", "0"), "--host 192.0.2.1 --port 0: Cannot assign requested address"),
        (("--host", ""), "--host: is empty; give a value"),
        (("--custom", "nowhere.py"), "nowhere.py"),
    ],
)
def test_what_cannot_be_is_one_line(run, served, words, line):
    code, out, err = run("ui", *words, "--no-open")
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and line in err and err.count("\n") == 1
    assert not served


def test_without_the_extra_it_says_how_to_install_it(run, served, monkeypatch):
    monkeypatch.setattr(ui, "find_spec", lambda name: None)
    code, out, err = run("ui", "--no-open")
    assert (code, out) == (2, "")
    assert err == "error: the page needs fastapi, uvicorn, cloudpickle: pip install tensorcast[ui]\n"


def test_an_error_in_a_template_of_ones_own_is_one_line(run, served, own_folder):
    (own_folder / "reports").mkdir()
    (own_folder / "reports" / "ui.html").write_text(
        "{% extends 'shipped/ui.html' %}\n{% block title %}{{ nothing }}{% endblock %}"
    )
    code, out, err = run("ui", "--no-open")
    assert (code, out) == (2, "")
    assert "reports/ui.html:2: " in err and err.count("\n") == 1
    (own_folder / "reports" / "ui.html").write_text(
        "{% extends 'shipped/ui.html' %}{% block title %}Ours{% endblock %}"
    )
    assert run("ui", "--port", "0", "--no-open")[0] == 0
