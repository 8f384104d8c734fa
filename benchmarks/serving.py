"""Fit what serving engines add to a step, and score it on models and machines that the fit has not seen.

    python benchmarks/serving.py DIR [--fit REGEX] [--sample N] [--residuals]

DIR/e2e.parquet: runs of served models. Few figures are fitted for each engine, all of them at least 0, with a loss
that grows slowly for rows far off, so that an error of the kernels' times is not taken for the engine's. Rows with a
suspected queue are left out; so are, in fits, models that ship draft layers: the table does not say which runs used
them. Prints the figures for `tensorcast/serving/engines.py`, and scores with each model and each machine left out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tensorcast.serving.engines import Engine, engine_named
from tensorcast.serving.predict import _cases, _Group, _groups
from tensorcast.serving.steady import SteadyState

FITTED = {"step_s": 1e-3, "sequence_s": 1e-5, "request_s": 2e-2, "prompt_step_s": 1e-3, "waves": 1.0}
"""The figures fitted, each with its scale."""
MOST = {"step_s": 6e-3, "sequence_s": 1e-4, "request_s": 0.03, "prompt_step_s": 2e-2, "waves": 1.0}
DRAFTS = ("deepseek",)
TTFT_WEIGHT = 0.3  # against TPOT: it is three times as noisy


class Runs:
    """Measured runs of one engine with their looked-up step times."""

    def __init__(self, frame, states: SteadyState) -> None:
        self.frame, self.states = frame, states

    def ratios(self, engine: Engine):
        """predicted / measured: TPOT, TTFT."""
        served = self.states.solve(engine)
        return (served.tpot_s / self.frame["tpot_s"].to_numpy(), served.ttft_s / self.frame["ttft_s"].to_numpy())

    def weights(self) -> np.ndarray:
        """Every (machine, model) counts the same."""
        groups = self.frame.groupby(["device", "model"])["id"].transform("size").to_numpy()
        return 1 / np.sqrt(groups / groups.mean())


def load(folder: Path, sample: int | None) -> dict[str, Runs]:
    """The aggregated runs, by engine."""
    import pandas

    frame = pandas.read_parquet(folder / "e2e.parquet")
    frame = frame[(frame["mode"] == "agg") & ~frame["queueing_suspect"].fillna(False)]
    if sample and len(frame) > sample:
        frame = frame.sample(sample, random_state=1)
    frame = frame.reset_index(drop=True)
    parts: dict[str, list] = {}
    for group in _groups(_cases(frame, np.full(len(frame), "", dtype=object))).values():
        built = _Group([case for _, case in group])
        parts.setdefault(built.engine.name, []).append(([index for index, _ in group], built.state))
    runs = {}
    for name, found in parts.items():
        rows = [index for rows, _ in found for index in rows]
        runs[name] = Runs(frame.iloc[rows].reset_index(drop=True), SteadyState.joined([state for _, state in found]))
    return runs


def select(runs: Runs, keep) -> Runs:
    """The runs where `keep`."""
    keep, chosen = np.asarray(keep, dtype=bool), SteadyState.__new__(SteadyState)
    for name, value in vars(runs.states).items():
        some = {key: v[keep] for key, v in value.items()} if isinstance(value, dict) else value[keep]
        setattr(chosen, name, some)
    return Runs(runs.frame[keep].reset_index(drop=True), chosen)


def fit(runs: Runs, engine: Engine) -> Engine:
    """The engine with figures fitted to runs."""
    from scipy.optimize import least_squares

    names, weights = list(FITTED), runs.weights()
    scale = np.array([FITTED[name] for name in names])

    def with_(x) -> Engine:
        return replace(engine, **dict(zip(names, x * scale, strict=True)))

    def residual(x):
        tpot, ttft = runs.ratios(with_(x))
        return np.concatenate([np.log(tpot) * weights, TTFT_WEIGHT * np.log(ttft) * weights, 0.02 * x])

    start = np.array([getattr(engine, name) for name in names]) / scale
    top = np.array([MOST[name] for name in names]) / scale
    found = least_squares(
        residual, np.clip(start, 1e-3, top * 0.99), bounds=(0, top), loss="soft_l1", f_scale=0.1, diff_step=1e-3
    )
    return with_(found.x)


def usable(frame, only: str) -> np.ndarray:
    """Rows a fit may use: of models whose names match `only`."""
    names = frame["model"].str.lower()
    return (~names.str.contains("|".join(DRAFTS)) & names.str.contains(only.lower())).to_numpy()


def figures(ratios) -> str:
    error, log = np.abs(ratios - 1) * 100, np.log(ratios) * 100
    return f"{np.median(error):6.1f} {np.percentile(error, 90):6.1f} {np.median(log):+6.1f}"


def left_out(runs: dict[str, Runs], column: str, only: str) -> None:
    """Scores with each value of `column` left out of the fit."""
    print(f"\n{column} left out of the fit: TPOT median, p90, bias; TTFT median, p90, bias (%)")
    both: dict[str, list] = {}
    for name, all_of in runs.items():
        for value in sorted(all_of.frame[column].unique()):
            out = (all_of.frame[column] == value).to_numpy()
            seen = ~out & usable(all_of.frame, only)
            engine = fit(select(all_of, seen), engine_named(name)) if seen.sum() >= 20 else engine_named(name)
            tpot, ttft = select(all_of, out).ratios(engine)
            both.setdefault(value, []).append((tpot, ttft))
            print(f"  {name:8} {value:34} {out.sum():5} {figures(tpot)}  {figures(ttft)}")
    for value, found in [*both.items(), ("all", [pair for pairs in both.values() for pair in pairs])]:
        tpot, ttft = (np.concatenate(parts) for parts in zip(*found, strict=True))
        print(f"  {'all':8} {value:34} {len(tpot):5} {figures(tpot)}  {figures(ttft)}")


def residuals(runs: dict[str, Runs], engines: dict[str, Engine]) -> None:
    """The bias of TPOT by machine, model, tensor parallelism and clients."""
    import pandas

    parts = []
    for name, all_of in runs.items():
        tpot, ttft = all_of.ratios(engines[name])
        parts.append(all_of.frame.assign(engine=name, tpot=100 * np.log(tpot), ttft=100 * np.log(ttft)))
    frame = pandas.concat(parts)
    frame["clients"] = pandas.cut(frame["concurrency"].astype(float).fillna(0), [-1, 4, 16, 64, 1e9])
    with pandas.option_context("display.width", 200, "display.max_rows", 500):
        for what in ("tpot", "ttft"):
            print(f"\nbias of {what.upper()} (%) by tensor ranks and clients")
            rows = ["device", "model", "engine", "tp_size"]
            print(frame.pivot_table(what, rows, "clients", "median", observed=True).round(0).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fit", default="", metavar="REGEX", help="fit on models whose names match; all are scored")
    parser.add_argument("--sample", type=int, help="so many rows, drawn by chance")
    parser.add_argument("--residuals", action="store_true", help="print the bias by machine, model, ranks and clients")
    args = parser.parse_args()
    runs, engines = load(args.folder, args.sample), {}
    for name, all_of in runs.items():
        engines[name] = fit(select(all_of, usable(all_of.frame, args.fit)), engine_named(name))
        told = ", ".join(f"{key}={getattr(engines[name], key):.3g}" for key in FITTED)
        tpot, ttft = all_of.ratios(engines[name])
        print(f"{name}: {told}   TPOT {figures(tpot)}  TTFT {figures(ttft)}")
    for column in ("model", "device"):
        left_out(runs, column, args.fit)
    if args.residuals:
        residuals(runs, engines)


if __name__ == "__main__":
    main()
