"""Which encoders and encoder-decoders of transformers trace: `python benchmarks/encoders.py [TABLE …] [--type T …]`.

Every model type of the tables of masked language models, images, sound and sequence-to-sequence models is built from
its class's defaults (made whole where they leave a field at None) and traced: one forward, or prefill and decode. One
row a type: parameters beside the library's own count, matrix FLOP, uncosted operators, tensor parallelism over two
ranks; or the reason why not. Totals at the end.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tensorcast.models import native

TABLES = (
    "MASKED_LM", "TEXT_ENCODING", "IMAGE", "IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="*", default=TABLES)
    parser.add_argument("--type", action="append")
    parser.add_argument("--no-tp", action="store_true")
    asked = parser.parse_args()
    totals: Counter = Counter()
    for table in asked.table:
        counts: Counter = Counter()
        for kind, classes in native.classes_of(table).items():
            if asked.type and kind not in asked.type:
                continue
            began = time.perf_counter()
            verdict, told = survey(kind, classes[0], tp=not asked.no_tp)
            counts[verdict] += 1
            spent = time.perf_counter() - began
            print(f"{table:22} {kind:28} {classes[0]:42} {verdict:7} {spent:5.1f} s  {told}", flush=True)
        totals += counts
        print(f"{table}: {dict(counts)}\n", flush=True)
    print(f"all tables: {dict(totals)}")


def survey(kind: str, class_name: str, *, tp: bool = True) -> tuple[str, str]:
    """("traces" or "not", what was found) of one model class with default dimensions."""
    from tensorcast.models.build import count_parameters
    from tensorcast.plan import ParallelPlan
    from tensorcast.trace.run import trace_step
    from tests.verify.deployed import matrix_flops

    try:
        source = source_of(kind, class_name)
        model = deployed(source)
        reading, phases = model.blueprint.source.reading, model.blueprint.source.phases
        batch, length, _ = model.probe
        told, uncosted = [f"{model.parameters / 1e6:.1f} M parameters"], set()
        if model.parameters != count_parameters(model.blueprint.module):
            return "not", "parameters differ from the module's own"
        for phase in phases:
            past = 0 if phase != "decode" else 5 if reading.encoder else length
            tokens = 1 if phase == "decode" and not reading.encoder else length
            tracer = trace_step(model, phase, batch, tokens, past)
            told.append(f"{phase} {matrix_flops(tracer.calls) / 1e9:.1f} GFLOP")
            uncosted |= set(tracer.uncosted)
        told += [f"uncosted {', '.join(sorted(uncosted))}"] * bool(uncosted)
    except Exception as reason:
        return "not", f"{type(reason).__name__}: {' '.join(str(reason).split())[:150]}"
    if tp:
        try:
            cut = deployed(source, plan=ParallelPlan(tp=2))
            for phase in phases:
                tokens = 1 if phase == "decode" and not reading.encoder else length
                trace_step(cut, phase, batch, tokens, 5 if phase == "decode" else 0)
            share = sum(s.matched for s in cut.steps if s.name == "shard_model")
            told.append(f"tp 2: {share} modules cut")
        except Exception as reason:
            told.append(f"tp 2 not: {' '.join(str(reason).split())[:100]}")
    return "traces", "; ".join(told)


def source_of(kind: str, class_name: str):
    """The default configuration of a type, made whole."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tensorcast.models.default_config import default_config
    from tensorcast.models.reference import from_mapping

    config = default_config(CONFIG_MAPPING[kind])
    return from_mapping({**config.to_dict(), "architectures": [class_name]})


def deployed(source, **deployment):
    from tests.verify.deployed import deploy

    return deploy(source, **deployment)


if __name__ == "__main__":
    main()
