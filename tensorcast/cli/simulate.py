"""`tensorcast simulate`: one model, one machine, one plan."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import click

from tensorcast.cli.options import (
    Fraction,
    Lengths,
    NonEmpty,
    Sectioned,
    Setting,
    Whole,
    debug_option,
    keep_options,
    option,
    repeatable,
    source_options,
)
from tensorcast.cli.output import STDOUT, check_outputs, write, write_files, writing, written
from tensorcast.cli.progress import progress
from tensorcast.errors import InputError
from tensorcast.plan import CHECKPOINTS, DIT_CACHE, GUIDANCE, OPTIMIZERS, OVERLAPS

QUANT = (
    "auto", "none", "w8a8", "w8a8-static", "w8a16", "w4a16", "w4a8", "fp8", "fp8-block", "mxfp4", "nvfp4",
)  # fmt: skip
ENGINES = ("bare", "vllm", "sglang", "trtllm", "mindie")
PHASES = ("auto", "prefill", "decode", "chunked", "forward", "denoise", "train")
DOES_NOT_FIT = 3
# The sections of --help.
SECTIONS = {
    "Model": (
        "model", "custom", "no_custom_dir", "no_plugin", "overrides", "layers", "dtype", "trust_remote_code",
    ),
    "Machine": ("hw", "runtime", "engine"),
    "Plan": ("tp", "ep", "dp", "pp", "sp", "cfg_parallel", "dcp", "sequence_parallel", "micro_batches", "overlap"),
    "Precision": ("quant", "kv_cache_dtype", "attention_quant", "exclude", "quant_lm_head"),
    "Work": (
        "phase", "batch", "input_len", "output_len", "max_model_len", "gpu_memory_utilization", "seq_lens",
        "prefix_len", "chunk", "mtp", "acceptance_rate", "concurrency", "moe_imbalance", "image", "frames", "steps",
        "guidance", "dit_cache",
    ),
    "Training": ("optimizer", "grad_checkpoint", "zero"),
    "Kernels": ("kernel", "config", "no_reuse", "strict", "no_cache"),
    "Output": (
        "json_file", "csv_file", "html_file", "markdown_file", "parquet_file", "tables_file", "trace_file", "keep",
        "force", "dump_graph", "emit", "top", "quiet", "require_fit", "debug",
    ),
}  # fmt: skip


def sections_without(left: Collection[str]) -> dict[str, tuple[str, ...]]:
    """SECTIONS for a verb that takes these options but for those of `left`."""
    kept = {title: tuple(name for name in names if name not in left) for title, names in SECTIONS.items()}
    return {title: names for title, names in kept.items() if names}


@click.command(
    "simulate",
    cls=Sectioned,
    sections=SECTIONS,
    short_help="Latency, throughput and memory of one model on one machine.",
    examples=(
        "tensorcast simulate --model qwen3-8b --hw h100",
        "tensorcast simulate --model deepseek-v3 --hw ascend-910b --tp 8 --quant w8a8 --batch 32",
        "tensorcast simulate --model flux.1-dev --hw h100 --image 1024x1024 --html flux.html",
        "tensorcast simulate --model qwen3-8b --hw h100 --phase train --tp 8 --json - --quiet",
    ),
)
@option("--model", "-m", type=NonEmpty("MODEL"), help="Model: a known name, a folder, a config.json or a hub id.")
@source_options
@repeatable("--set", "overrides", type=Setting(), help="Change a field of the model's config, e.g. a.b=3.")
@option("--layers", type=Whole(), help="Keep only the first N layers (at most N of each list of blocks).")
@option("--dtype", help="Floating-point type of the model.  [default: the config's]")
@click.option("--trust-remote-code", is_flag=True, help="Load model code found in the model's own folder.")
@option("--hw", required=True, type=NonEmpty("MACHINE"), help="Machine: a known name or a YAML file.")
@option("--runtime", type=click.Choice(["graph", "eager"]), help="Compiled graph or op by op.  [default: graph]")
@option("--engine", type=click.Choice(ENGINES), help="Serving engine whose own time counts too.  [default: bare, none]")
@option("--tp", "--tensor-parallel-size", type=Whole(), help="Devices that split each layer.  [default: 1]")
@option("--ep", "--expert-parallel-size", type=Whole(), help="Devices that divide the experts.  [default: 1]")
@option("--dp", "--data-parallel-size", type=Whole(), help="Copies of the attention (in training: all).  [default: 1]")
@option("--pp", "--pipeline-parallel-size", type=Whole(), help="Pipeline stages.  [default: 1]")
@option("--sp", "--ulysses-size", type=Whole(), help="Devices that split the sequence.  [default: 1]")
@option("--cfg-parallel", type=Whole(), help="2: guided and unguided prediction side by side.  [default: 1]")
@option("--dcp", "--decode-context-parallel-size", type=Whole(), help="Of --tp: they share a KV cache.  [default: 1]")
@click.option("--sequence-parallel", is_flag=True, help="Each rank of --tp normalises and adds up its own tokens only.")
@option("--micro-batches", type=Whole(), help="Micro-batches of a pipeline or training.  [default: one per stage]")
@option("--overlap", type=click.Choice(OVERLAPS), help="What runs beside communication.  [default: none]")
@option(
    "--quant",
    type=click.Choice(QUANT),
    metavar="SCHEME",
    help=f"Weights and activations: {', '.join(QUANT)}.  [default: auto, the checkpoint's own]",
)
@option(
    "--kv-cache-dtype",
    type=NonEmpty("KV_FORMAT"),
    help="Number format of the KV cache.  [default: the checkpoint's own]",
)
@option(
    "--attention-quant",
    type=NonEmpty("FORMAT"),
    help="Number format of the attention products.  [default: not quantised]",
)
@repeatable("--exclude", type=NonEmpty("PATTERN"), help="Modules not to quantise: name, glob or re:regex.")
@click.option("--quant-lm-head", is_flag=True, help="Quantise the output head too.")
@option("--phase", type=click.Choice(PHASES), help="What to simulate.  [default: auto, prefill and decode]")
@option("--batch", "--batch-size", type=Whole(), help="Sequences at a time.  [default: 1]")
@option("--input-len", "--isl", type=Whole(), help="Prompt tokens per sequence.  [default: 4096]")
@option("--output-len", "--osl", type=Whole(), help="Generated tokens per sequence.  [default: 1024]")
@option("--max-model-len", type=Whole(), help="Tokens per sequence to reserve memory for.  [default: input + output]")
@option("--gpu-memory-utilization", type=Fraction(open_below=True), help="Share of the memory that may be used.")
@option("--seq-lens", type=Lengths(), help="Prompt tokens of each sequence of a ragged batch: 128,4096,77.")
@option("--prefix-len", type=Whole(0), help="Prompt tokens already in the KV cache.  [default: 0]")
@option("--chunk", type=Whole(), help="Prompt tokens per step in a chunked prefill.")
@option("--mtp", type=Whole(0), help="Tokens predicted ahead per step.  [default: 0]")
@option("--acceptance-rate", type=Fraction(open_below=False), help="Share of predicted tokens that are kept, 0 to 1.")
@option("--concurrency", type=Whole(), help="Clients at all times: adds TTFT and TPOT under that load.")
@option("--moe-imbalance", help="Popularity of experts: uniform or power-law:ALPHA.  [default: uniform]")
@repeatable("--image", type=NonEmpty("HxW"), help="Pixels of a denoiser's image, or of one in every prompt.")
@option("--frames", type=Whole(), help="Frames of the video.  [default: what the model's pipelines make]")
@option("--steps", type=Whole(), help="Denoising steps of a request.  [default: the pipeline's; 1 for a denoiser]")
@option("--guidance", type=click.Choice(GUIDANCE), help="How a step is guided.  [default: as the pipeline does]")
@option("--dit-cache", type=NonEmpty("SCHEDULE"), help=f"Steps that take kept results: {DIT_CACHE}.")
@option("--optimizer", type=click.Choice(OPTIMIZERS), help="Of --phase train.  [default: adamw]")
@option("--grad-checkpoint", type=click.Choice(CHECKPOINTS), help="Layers run again in the backward pass.")
@option("--zero", type=Whole(0), help="Divided over --dp: 1 states, 2 gradients, 3 weights.  [default: 0]")
@repeatable("--kernel", type=NonEmpty("KERNEL"), help="OP[/VARIANT][@GLOB]=NAME: run an operator with this kernel.")
@option("--config", type=NonEmpty("FILE"), help="Choices of kernels as a file.  [default: ./tensorcast.toml if any]")
@click.option("--no-reuse", is_flag=True, help="Trace every layer, not one of each kind.")
@click.option("--strict", is_flag=True, help="An uncosted operator or an assumed figure is an error.")
@click.option("--no-cache", is_flag=True, help="Neither read nor write the cache of traced models.")
@option("--json", "json_file", type=NonEmpty("FILE"), help="Write the result as JSON; - is standard output.")
@option("--csv", "csv_file", type=NonEmpty("FILE"), help="Write one row per phase and operator; - is standard output.")
@option("--html", "html_file", type=NonEmpty("FILE"), help="Write the report as a page that opens offline.")
@option("--markdown", "markdown_file", type=NonEmpty("FILE"), help="Write the report as Markdown; - as with --json.")
@option("--parquet", "parquet_file", type=NonEmpty("FILE"), help="Write the rows of --csv as Parquet.")
@option("--tables", "tables_file", type=NonEmpty("FILE"), help="Write every table of the report into a .zip.")
@option("--trace", "trace_file", type=NonEmpty("FILE"), help="Write what runs when, for Perfetto; FILE.gz is packed.")
@keep_options
@option("--dump-graph", type=NonEmpty("FILE"), help="Write the graph of a ComputeGraph as JSON; - is standard output.")
@option("--emit", type=click.Choice(ENGINES[1:]), help="Print what starts this deployment on a serving engine.")
@option("--top", type=Whole(0), help="Operators to show per phase.  [default: 10]")
@click.option("--quiet", "-q", is_flag=True, help="Print no report.")
@click.option("--require-fit", is_flag=True, help="Exit with 3 when the model does not fit in memory.")
@debug_option
def command(
    json_file: str | None,
    csv_file: str | None,
    html_file: str | None,
    markdown_file: str | None,
    parquet_file: str | None,
    tables_file: str | None,
    trace_file: str | None,
    dump_graph: str | None,
    emit: str | None,
    top: int | None,
    quiet: bool,
    require_fit: bool,
    debug: bool,
    no_reuse: bool,
    no_custom_dir: bool,
    no_cache: bool,
    **flags: Any,
) -> int:
    """How fast a model runs on a machine and whether it fits.

    Times are in seconds, sizes in bytes, lengths in tokens.
    """
    files = {
        "--json": json_file, "--csv": csv_file, "--html": html_file, "--markdown": markdown_file,
        "--parquet": parquet_file, "--tables": tables_file,
    }  # fmt: skip
    line_to = STDOUT if emit is not None else None
    check_outputs((*files.items(), ("--trace", trace_file), ("--dump-graph", dump_graph), ("--emit", line_to)))
    from tensorcast.estimate import simulate

    with progress(quiet) as report:
        switches = {"reuse": not no_reuse, "cache": not no_cache, "custom_dir": not no_custom_dir}
        answer = simulate(**request(flags), **switches, progress=report)
    line = answer.start_line(emit) if emit is not None else None
    if dump_graph is not None:
        answer.dump_graph(dump_graph)
    estimate, top = answer.to_dict(), 10 if top is None else top
    write_files("simulate", estimate, files, quiet, top=top)
    if trace_file is not None:
        from tensorcast.report.perfetto import write_trace

        with writing(trace_file, quiet), written(trace_file, "--trace") as file:
            write_trace(file, estimate, answer.timelines, packed=trace_file.lower().endswith(".gz"))
    if not quiet and STDOUT not in (*files.values(), trace_file, dump_graph):
        from tensorcast.report.terminal.simulate import print_report

        print_report(estimate, top=top)
    if line is not None:
        write(STDOUT, f"{line}\n", "--emit")
    return verdict(estimate, require_fit)


def request(flags: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `tensorcast.estimate.simulate`: only what was given, so that defaults live in one place."""
    # By identity: a rate or a length of 0 was given, though it equals False.
    given = {name: value for name, value in flags.items() if value is not None and value is not False and value != ()}
    for name in ("exclude", "kernel", "custom", "no_plugin", "image"):
        if name in given:
            given[name] = list(given[name])
    if "overrides" in given:
        given["overrides"] = merged(given["overrides"])
    return given


def merged(settings: tuple[tuple[str, object], ...]) -> dict[str, object]:
    """The `--set` pairs as a dict; a key with two values is an error."""
    result: dict[str, object] = {}
    for key, value in settings:
        if key in result and result[key] != value:
            raise InputError(f"--set {key}: given twice, {result[key]!r} and {value!r}; give it once")
        result[key] = value
    return result


def verdict(estimate: dict[str, Any], require_fit: bool) -> int:
    """The exit code: 3 when it must fit and does not, which one line on stderr says."""
    memory = estimate["memory"]
    if not require_fit or memory["fits"]:
        return 0
    from tensorcast.units import bytes_

    needed, capacity = bytes_(memory["total_bytes"]), bytes_(memory["capacity_bytes"])
    print(f"does not fit: needs {needed} per device, has {capacity}", file=sys.stderr)
    return DOES_NOT_FIT
