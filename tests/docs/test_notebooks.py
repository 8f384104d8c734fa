"""The notebooks of docs/ run in any folder, leave nothing there, and show what direct calls give."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

import tensorcast as tc

nbformat = pytest.importorskip("nbformat", reason="the extra `notebook` is not installed")
pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
pytest.importorskip("ipykernel", reason="the extra `notebook` is not installed")

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PLOT = "application/vnd.plotly.v1+json"


def read(name: str):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A notebook after it ran with this interpreter in an empty folder, which is empty again."""
    for variable in ("TENSORCAST_CACHE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("PLOTLY_RENDERER", raising=False)

    def run(name: str) -> Outputs:
        from jupyter_client import AsyncKernelManager
        from nbclient import NotebookClient

        folder = tmp_path / "work"
        folder.mkdir()
        notebook = read(name)
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=this_interpreter())
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, km=manager, timeout=120, resources=where).execute()
        assert os.listdir(folder) == [], "it leaves nothing behind"
        return Outputs(notebook)

    return run


def this_interpreter():
    """What is known of kernels: that of this Python, whatever is installed beside it."""
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class Here(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    return Here()


class Outputs:
    """What the cells of a notebook that ran say; checks of all notebooks."""

    def __init__(self, notebook) -> None:
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell in self.cells:
            for output in cell.outputs:
                assert output.output_type != "error" and output.get("name") != "stderr", output
                assert not re.search(r"<script|src=|https?://", str(output.get("data", {}).get("text/html", "")))
            drawn = [output.data[PLOT] for output in cell.outputs if PLOT in output.get("data", {})]
            assert len(drawn) == bool(re.search(r"^\S*\.plot_", cell.source, re.M)), cell.source
            assert all(figure["data"] and figure["layout"]["title"]["text"] for figure in drawn)

    def of(self, source: str) -> str:
        """What the one cell with `source` in it prints, or the text of its result."""
        (cell,) = [cell for cell in self.cells if source in cell.source]
        return "".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)


def test_there_are_notebooks_of_each_kind() -> None:
    assert NAMES == ["comparing_machines", "first_steps", "own_model_own_machine", "parallel_sweep"]


@pytest.mark.parametrize("name", NAMES)
def test_stored_notebooks_are_clean(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
        else:
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (FOLDER / target).exists(), target


def test_first_steps(ran) -> None:
    found = ran("first_steps")
    asked = dict(model="deepseek-v3", hw="ascend-910b", tp=16, ep=16, quant="w8a8", batch=8)
    estimate = tc.simulate(**asked)
    figures = [estimate.metrics[name] for name in ("ttft_s", "tpot_s", "tokens_per_s_per_device")]
    assert list(ast.literal_eval(found.of('estimate.metrics["ttft_s"]'))) == pytest.approx(figures, rel=1e-12)
    assert ast.literal_eval(found.of('("fits", "max_batch"'))["max_batch"] == estimate.memory["max_batch"]
    fits, _, plans = ast.literal_eval(found.of("half ="))
    assert not fits and any(plan.startswith("--tp 16") for plan in plans)
    assert found.of("tp=3").startswith("--tp 3: ") and found.of("print(estimate.command)").strip() == estimate.command


def test_parallel_sweep(ran) -> None:
    found = ran("parallel_sweep")
    plans = [{"tp": 8, "ep": [1, 8]}, {"tp": 2, "dp": 4, "ep": 8}, {"dp": 8, "ep": 8}]
    work = dict(model="qwen3-30b-a3b", hw="h100-sxm", input_len=2048, output_len=512)
    rows = tc.sweep(space=plans, batch="8:1024:x2", **work)
    fast = rows[rows.tpot_s < 0.015].groupby(["tp", "dp", "ep"]).tokens_per_s_per_device.max().max()
    told = [float(number) for number in re.findall(r"ep \d +(\d+\.\d+)", found.of("quick ="))]
    assert told[0] == max(told) == pytest.approx(fast, rel=1e-6) and len(told) == 4
    assert found.of("best = ").startswith("Optimum('qwen3-30b-a3b', devices=8, ")
    assert found.of("start_line").startswith("vllm serve Qwen/Qwen3-30B-A3B ")


def test_comparing_machines(ran) -> None:
    found = ran("comparing_machines")
    work = dict(model="qwen3-8b", input_len=2048, output_len=512)
    prices = {"h100-sxm": 2.5, "ascend-910c-die": 1.1}
    lines = re.findall(r"batch (\d+) to (\d+): (\S+)", found.of("for stretch in"))
    assert lines[0][0] == "1" and lines[-1][1] == "512"
    assert [int(last) + 1 for _, last, _ in lines[:-1]] == [int(first) for first, _, _ in lines[1:]]
    for first, last, best in lines:
        for batch in {int(first), int(last)}:
            costs = {}
            for name, price in prices.items():
                estimate = tc.simulate(hw=name, batch=batch, **work)
                if estimate.memory["fits"]:
                    costs[name] = price / 3600 * 1e6 / estimate.metrics["tokens_per_s_per_device"]
            assert best == min(costs, key=costs.get, default="nothing"), batch


def test_own_model_own_machine(ran) -> None:
    found = ran("own_model_own_machine")
    parameters = 32000 * 1024 + 12 * (2 * 4096 * 1024 + 4096 + 1024 + 2 * 1024)
    assert ast.literal_eval(found.of("by_hand =")) == parameters
    weights = ast.literal_eval(found.of("split ="))
    assert weights["one device, bf16"] == 2 * parameters > 2 * weights["two devices, fp8"]
    assert found.of("strict=True").startswith("--strict: assumed figures: reserved.bytes, host.op_time_s")
    assert "pass  file loads" in found.of('"check"') and "FAIL" not in found.of('"check"')
