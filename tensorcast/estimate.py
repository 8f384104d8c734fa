"""`simulate`: one model, one machine, one plan → an Estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tensorcast.answer import Answer
from tensorcast.errors import InputError
from tensorcast.graph import ComputeGraph
from tensorcast.models.reference import DENOISE
from tensorcast.options import command
from tensorcast.plan import TRAIN
from tensorcast.report.notebook.plots import EstimatePlots
from tensorcast.request import Request

if TYPE_CHECKING:
    from tensorcast.cost.phase import Phase
    from tensorcast.cost.timeline import Timeline


@dataclass(frozen=True)
class Estimate(EstimatePlots):
    """The answer. `to_dict()` is the JSON of `tensorcast simulate --json`; everything per device, in SI units.

    `graph` is the recorded ComputeGraph of a model that is one, `request` what was asked, `command` the command line
    that asks the same (None for what only Python can say).
    """

    _dict: Mapping[str, Any] = field(repr=False)
    graph: Any = field(default=None, repr=False)
    request: Request | None = field(default=None, repr=False)
    command: str | None = field(default=None, repr=False)
    _priced: Mapping[str, Phase] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self._dict["metrics"]

    @property
    def memory(self) -> Mapping[str, Any]:
        return self._dict["memory"]

    @property
    def phases(self) -> dict[str, PhaseView]:
        return {name: PhaseView(phase) for name, phase in self._dict["phases"].items()}

    @cached_property
    def timelines(self) -> dict[str, Timeline]:
        """Phase → when each of its operators runs on one device."""
        from tensorcast.cost.timeline import timeline

        return {name: timeline(phase) for name, phase in self._priced.items()}

    @property
    def warnings(self) -> Sequence[str]:
        return self._dict["warnings"]

    def to_dict(self, *, timelines: bool = True) -> dict[str, Any]:
        """Plain values only, names as in the JSON. `timelines`: those of the phases, which take as long as all else."""
        import copy

        plain = copy.deepcopy(dict(self._dict))
        for name, line in self.timelines.items() if timelines else ():
            plain["phases"][name]["timeline"] = line.to_dict()
        return {**plain, "command": self.command}

    def to_json(self, path: str) -> None:
        """Write the JSON; raises InputError when the file cannot be written, as all of these do."""
        self._write("json", path)

    def to_csv(self, path: str) -> None:
        """Write one row per phase and operator."""
        self._write("csv", path)

    def to_parquet(self, path: str) -> None:
        """Write the rows of `to_csv` with typed columns, units and meanings; the metadata has the rest of the JSON."""
        self._write("parquet", path)

    def to_tables(self, path: str) -> None:
        """Write every table of the report, as CSV and Parquet, and the JSON into one zip."""
        self._write("tables", path)

    def to_markdown(self, path: str, top: int = 10) -> None:
        """Write the report as Markdown, with the `top` operators of each phase."""
        self._write("markdown", path, top=top)

    def to_html(self, path: str) -> None:
        """Write the report as one HTML file that needs no network."""
        self._write("html", path)

    def _write(self, name: str, path: str, **options: Any) -> None:
        from tensorcast.cli.output import write
        from tensorcast.report.files import content

        write(str(path), content("simulate", name, self.to_dict(), **options), f"to_{name}")

    def to_trace(self, path: str) -> None:
        """Write the timelines as a trace for Perfetto, packed where the name ends in .gz; InputError as above."""
        from tensorcast.cli.output import written
        from tensorcast.report.perfetto import write_trace

        with written(str(path), "to_trace") as file:
            write_trace(file, self.to_dict(), self.timelines, packed=str(path).lower().endswith(".gz"))

    def dump_graph(self, path: str) -> None:
        """Write the model's graph as JSON, which `--custom` reads; InputError for a model that is no ComputeGraph."""
        from tensorcast.cli.output import write

        if self.graph is None:
            name = self._dict["model"]["name"]
            raise InputError(f"--dump-graph: {name} is not given as a ComputeGraph; name one with --custom FILE")
        write(str(path), self.graph.to_json(), "--dump-graph")

    def start_line(self, engine: str) -> str:
        """What starts this deployment on vllm, sglang, trtllm or mindie; raises as tensorcast.emit.line.start_line."""
        from tensorcast.emit.launch import fields_of
        from tensorcast.emit.line import start_line

        figures = {name: self._dict[name] for name in ("workload", "memory")}
        return start_line(engine, {**fields_of(self.request), **figures})

    def _repr_html_(self) -> str:
        """A summary, for notebooks."""
        from tensorcast.report.notebook.cells import estimate_cell

        return estimate_cell(self._dict)

    def __repr__(self) -> str:
        m, d = self.metrics, self._dict
        first = [name for name in ("ttft_s", "tpot_s", "step_time_s") if m.get(name) is not None]
        told = first or [name for name in ("request_latency_s",) if m.get(name) is not None]
        shown = "".join(f", {name}={m[name]:.6g}" for name in told)
        return f"Estimate({d['model']['name']!r} on {d['hardware']['name']!r}{shown}, fits={self.memory['fits']})"


class PhaseView(Mapping):
    """One phase: the JSON's keys, as items and attributes; `ops` is a pandas DataFrame."""

    def __init__(self, phase: Mapping[str, Any]) -> None:
        self._phase = phase

    def __getitem__(self, key: str) -> Any:
        return self._phase[key]

    def __iter__(self):
        return iter(self._phase)

    def __len__(self) -> int:
        return len(self._phase)

    def __getattr__(self, name: str) -> Any:
        if name == "ops":
            import pandas

            return pandas.DataFrame(self._phase["ops"])
        try:
            return self._phase[name]
        except KeyError:
            raise AttributeError(name) from None


def _answer_of(request: Request) -> type[Answer]:
    """What answers a request: training and diffusion have figures of their own."""
    if request.work.phase == TRAIN:
        from tensorcast.training.answer import TrainingAnswer

        return TrainingAnswer
    if request.source.phases == DENOISE:
        from tensorcast.diffusion.answer import DenoiserAnswer

        return DenoiserAnswer
    return Answer


def simulate(
    model: Any = None,
    hw: Any = None,
    *,
    progress: Callable[[str, float | None], None] | None = None,
    cache: bool = True,
    strict: bool = False,
    trust_remote_code: bool = False,
    custom_dir: bool = True,
    no_cache: bool = False,
    no_custom_dir: bool = False,
    **options: Any,
) -> Estimate:
    """Latency, throughput, memory and a per-operator breakdown of `model` on `hw`.

    `model`: a name (`tensorcast list models`), a folder, a config.json, a hub id, or a mapping such as one; `hw`: a
    machine's name or its YAML file. `options` are the command line's flags with `_` for `-`: tp, ep, dp, pp, quant,
    kv_cache_dtype, batch (sequences), input_len and output_len (tokens), phase, mtp, kernel, runtime, custom, …;
    `tensorcast simulate --help` has each with its unit and default.
    `progress`: called with what is being done, and the share that is done or None. `cache`: traced models are kept on
    disk; `strict`: an operator without a cost or an assumed figure is an error; `custom_dir`: files in ./custom_model
    count; `trust_remote_code`: code that lies beside a config.json may run. `no_cache=True` is `cache=False`, and
    `no_custom_dir=True` is `custom_dir=False`, as the flags.

    Returns an Estimate, whose figures are per device and in SI units. Raises a TensorcastError with the command line's
    message for a request that cannot be honoured.
    """
    custom_dir, cache = custom_dir and not no_custom_dir, cache and not no_cache
    switches = {"trust_remote_code": trust_remote_code, "custom_dir": custom_dir, "cache": cache, "strict": strict}
    asked = command("simulate", {"model": model, "hw": hw, **options, **switches})
    request = Request.of(model=model, hw=hw, trust_remote_code=trust_remote_code, custom_dir=custom_dir, **options)
    answer = _answer_of(request)(request, cache=cache, progress=progress)
    custom = request.source.custom
    graph = custom.value if custom is not None and isinstance(custom.value, ComputeGraph) else None
    return Estimate(answer.to_dict(strict=strict), graph, request, asked, answer.phases)
