"""Tables of served models: time to the first token and between tokens of every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tensorcast.errors import InputError, TensorcastError
from tensorcast.serving.case import SUFFIXES, Case, Deployed, case_of
from tensorcast.serving.engines import Engine, engine_named
from tensorcast.serving.steady import FIRST_SHARE, ROUNDS, Load, Served, SteadyState
from tensorcast.serving.steps import StepTimes, points

NEEDED = ("device", "model", "isl", "osl")


def predict_serving(frame, *, cache: bool = True, engines: Mapping[str, Engine] | None = None):
    """A table (ttft_s, tpot_s, reason) like `frame`, whose rows are runs of served models.

    Columns: device, model, isl, osl, concurrency (or batch_size, of one attention group), backend (an engine's name),
    mode (agg, disagg), precision and gemm_dtype, moe_dtype, and the plan: tp_size, attention_dp_size, moe_tp_size,
    moe_ep_size, with the prefix `prefill_` or `decode_` where mode is disagg. Times are means over the requests of a
    steady load (`tensorcast.serving.steady`). `reason` says why a row has no answer (its times are NaN), else "".
    InputError when a column is missing.
    """
    import pandas

    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        raise InputError(f"serving table: no column {', '.join(missing)}")
    told = {"ttft_s": np.full(len(frame), np.nan), "tpot_s": np.full(len(frame), np.nan)}
    reasons = np.full(len(frame), "", dtype=object)
    cases = _cases(frame, reasons)
    for group in _groups(cases).values():
        rows = np.array([index for index, _ in group])
        try:
            served = _Group([case for _, case in group], cache).solve(engines or {})
        except TensorcastError as error:
            reasons[rows] = str(error)
            continue
        told["ttft_s"][rows], told["tpot_s"][rows] = served.ttft_s, served.tpot_s
    return pandas.DataFrame({**told, "reason": reasons}, index=frame.index)


def _cases(frame, reasons) -> list[tuple[int, Case]]:
    cases = []
    for index, row in enumerate(frame.to_dict("records")):
        try:
            cases.append((index, case_of(row)))
        except (TensorcastError, ValueError) as error:
            reasons[index] = str(error)
    return cases


def _groups(cases: Iterable[tuple[int, Case]]) -> dict[tuple[Deployed, Deployed | None], list[tuple[int, Case]]]:
    groups: dict[tuple[Deployed, Deployed | None], list[tuple[int, Case]]] = {}
    for index, case in cases:
        groups.setdefault((case.decode, case.prefill), []).append((index, case))
    return groups


class _Group:
    """Cases of one deployment."""

    def __init__(self, cases: list[Case], cache: bool = True) -> None:
        self.cases = cases
        self.engine = engine_named(cases[0].decode.engine)
        self.decode, self.prefill = cases[0].decode, cases[0].prefill
        times = step_times(self.decode, cache)
        workers = self._array("decode_workers")
        self.loads = Load(
            np.ceil(self._array("clients") / (self.decode.dp * workers)),
            self._array("input_len"),
            self._array("output_len"),
        )
        self.state = SteadyState(times, self.loads, self.engine.step_tokens)
        self.prompts = None
        if self.prefill is not None:
            self.prompts = SteadyState(step_times(self.prefill, cache), self._prompt_load(), self.engine.step_tokens)

    def _array(self, name: str) -> np.ndarray:
        return np.array([getattr(case, name) for case in self.cases])

    def _prompt_load(self) -> Load:
        ranks = self.prefill.dp * self._array("prefill_workers")
        clients = np.ceil(self._array("clients") / ranks)
        return Load(clients, self._array("input_len"), np.ones_like(clients))

    def solve(self, engines: Mapping[str, Engine]) -> Served:
        engine = engines.get(self.decode.engine, self.engine)
        if self.prompts is None:
            return self.state.solve(engine)
        return apart(self.state, self.prompts, engine)


def apart(state: SteadyState, prompts: SteadyState, engine: Engine) -> Served:
    """Prompts and decoding on machines of their own. Decode steps hold no prompts, TPOT = decode(b) + h(b). The prompt
    machines serve what the closed loop sends: a request's first token takes its prompt's steps T_1 and the wait of the
    others that are there, max(0, c T_1 - O TPOT) when they are the bottleneck. Seconds."""
    one = prompts.steps * prompts.prompts(1.0) + engine.prompt_overhead(prompts.steps) - engine.request_s
    host = engine.step_overhead(1) + engine.prompt_step_s
    each = prompts.steps * (prompts.prompts(prompts.full) + host) / prompts.full
    b, n = state.c, state.after_first
    for _ in range(ROUNDS):
        tpot = state.decode(b) + engine.step_overhead(b)
        first = np.maximum(one, prompts.c * each - n * tpot)
        b = 0.5 * b + 0.5 * np.clip(state.c * n * tpot / (first + n * tpot), 1.0, state.c)
    burst = (prompts.c + 1) / 2 * each
    return Served(engine.request_s + first + FIRST_SHARE * np.maximum(burst - first, 0.0), tpot, b)


def step_times(deployed: Deployed, cache: bool = True) -> StepTimes:
    """The steps of a deployment, priced on its machine; raises what `simulate` raises."""
    from tensorcast.answer import Answer
    from tensorcast.hardware.load import hardware
    from tensorcast.request import Request

    engine = engine_named(deployed.engine)
    options: dict[str, Any] = {"tp": deployed.tp, "dp": deployed.dp, "batch": deployed.dp, "input_len": 256}
    source, quant, experts = known_model(deployed)
    options |= {"quant": quant, "output_len": 2, "ep": deployed.ep if experts else 1}
    if deployed.kv_quantised and engine.kv_cache and hardware(deployed.device).has("nvfp4"):
        options["kv_cache_dtype"] = engine.kv_cache
    request = Request.of(model=source, hw=deployed.device, custom_dir=False, engine=engine.name, **options)
    answer = Answer(request, cache=cache, steps=points())
    return StepTimes(answer.deployed, answer.hw)


def known_model(deployed: Deployed) -> tuple[str, str, bool]:
    """(name, scheme, whether it has experts): the catalogue's model, also under the name of a quantised copy of it."""
    from tensorcast.models.reference import resolve_model

    name, quant = model_name(deployed.model), deployed.quant
    config = resolve_model(name).config
    stored = (config.get("quantization_config") or {}).get("quant_method")
    if quant in ("fp8", "fp8-block") and stored == "fp8":
        quant = "auto"
    if quant in ("nvfp4", "mxfp4", "fp8") and stored == "mxfp4":
        quant = "auto"
    if quant == "fp8" and _own_copy(deployed.model, name):
        quant = "fp8-block"
    text = config.get("text_config") or config
    experts = any(text.get(key) for key in ("n_routed_experts", "num_experts", "num_local_experts"))
    return name, quant, experts


def _own_copy(asked: str, name: str) -> bool:
    """Whether a model's own publisher quantised the asked copy of it: Qwen3 and GLM share scales by blocks in theirs,
    where other publishers' FP8 copies have a scale a tensor."""
    return asked.lower() == f"{name}-fp8".lower() and "/" in asked


def model_name(name: str) -> str:
    """The name in the catalogue, without a suffix that tells a number format; as it is where nothing else is known."""
    from tensorcast.models.entries import find_entry, known_names

    if find_entry(name) is not None:
        return name
    owner, _, short = name.rpartition("/")
    for suffix in SUFFIXES:
        if short.lower().endswith(suffix.lower()):
            short = short[: -len(suffix)]
    for found in (f"{owner}/{short}" if owner else short, short):
        if find_entry(found) is not None:
            return found
    of_others = (known for known in known_names() if known.rpartition("/")[2].lower() == short.lower())
    return next(of_others, name)
