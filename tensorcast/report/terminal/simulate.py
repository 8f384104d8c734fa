"""The report of one estimate on a terminal: the answer first, then where it comes from.

Works from `Estimate.to_dict()` alone. Beyond the fixed keys it shows, where present: `hardware.asked` (the name that
was an alias), `memory.suggestions` (plans that fit) and `provenance` (where the coefficients come from).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from rich.text import Text

from tensorcast.report.facts import facts_of, pairs
from tensorcast.report.terminal import PIPE_WIDTH, printed
from tensorcast.report.terminal.lines import bullet, facts, heading, remarks, wrapped
from tensorcast.report.terminal.memory import memory_lines
from tensorcast.report.terminal.ops import phase_lines
from tensorcast.units import count, percent, rate, seconds


def print_report(estimate: Mapping[str, Any], *, top: int = 10, file: IO[str] | None = None) -> None:
    """Print the report; 80 columns and no colour where nobody watches, the terminal's width where someone does."""
    printed(lambda width, ascii_only: report_lines(estimate, width=width, top=top, ascii_only=ascii_only), file)


def report_lines(
    estimate: Mapping[str, Any], *, width: int = PIPE_WIDTH, top: int = 10, ascii_only: bool = False
) -> list[Text]:
    """The whole report as lines of at most `width` characters."""
    sections = [
        headline(estimate, width),
        metric_lines(estimate["metrics"]),
        memory_lines(estimate["memory"], width, ascii_only=ascii_only),
        *(phase_lines(name, phase, width, top) for name, phase in estimate["phases"].items()),
        step_lines(estimate["steps"], width),
        kernel_lines(estimate["kernels"], width),
        remarks("Not costed", [_uncosted(op) for op in estimate["uncosted_ops"]], width, "yellow"),
        remarks("Warnings", [str(warning) for warning in estimate["warnings"]], width, "yellow"),
        provenance_lines(estimate.get("provenance"), width),
    ]
    lines: list[Text] = []
    for section in sections:
        if section:
            lines += [Text("")] * bool(lines) + section
    return lines


def headline(estimate: Mapping[str, Any], width: int) -> list[Text]:
    """What was simulated: model, machine, plan, precision, work."""
    model, hardware = estimate["model"], estimate["hardware"]
    lines = wrapped(f"{model['name']} on {hardware['devices']} x {hardware['name']}", width, "bold")
    asked = hardware.get("asked")
    if asked and asked != hardware["name"]:
        note = f"(asked for as {asked})"
        if len(lines[-1]) + 1 + len(note) <= width:
            lines[-1].append(f" {note}", style="not bold")
        else:
            lines += wrapped(note, width)
    return [*lines, *(row for label, parts in facts_of(estimate).items() for row in facts(label, parts, width))]


def metric_lines(metrics: Mapping[str, Any]) -> list[Text]:
    """The answer; a figure that the asked phase does not have is left out."""
    shown = [
        ("TTFT", seconds, "ttft_s", "time to first token"),
        ("TPOT", seconds, "tpot_s", "time per output token, mean over all output positions"),
        ("step", seconds, "step_time_s", "one training step: forward, backward, optimizer"),
        ("model FLOPs", percent, "model_flops_utilisation", "of the peak, by 6 x active parameters x tokens"),
        ("all FLOPs", percent, "hardware_flops_utilisation", "of the peak, by the products run, recomputed ones too"),
        ("latency", seconds, "request_latency_s", "of a whole request"),
        ("text", seconds, "text_encoder_s", "text encoders, once a request"),
        ("pictures", seconds, "vae_encoder_s", "pictures given to latents"),
        ("step", seconds, "denoise_step_s", "one denoising step, mean over all of them"),
        ("steps", seconds, "denoise_s", "all denoising steps"),
        ("VAE", seconds, "vae_s", "latents to pixels"),
        ("loaded TTFT", seconds, "ttft_loaded_s", "with the clients asked at all times"),
        ("loaded TPOT", seconds, "tpot_loaded_s", "likewise, steps with prompts included"),
    ]
    lines = []
    for label, form, key, meaning in shown:
        if metrics.get(key) is not None:
            line = Text(f"{label:<12}").append(f"{form(metrics[key]):<10}", style="bold")
            lines.append(line.append(meaning, style="dim"))
    if metrics.get("images_per_s") is not None:
        line = Text(f"{'throughput':<12}").append(rate(metrics["images_per_s"], "results/s"), style="bold")
        lines.append(line.append(f" · {rate(metrics['images_per_s_per_device'], 'per device')}"))
    if metrics.get("requests_per_s") is not None:
        lines.append(Text(f"{'throughput':<12}").append(rate(metrics["requests_per_s"], "requests/s"), style="bold"))
    throughput = metrics.get("tokens_per_s")
    if throughput is not None:
        line = Text(f"{'throughput':<12}").append(rate(throughput, "tokens/s"), style="bold")
        for key, name in (("tokens_per_s_per_device", "device"), ("tokens_per_s_per_user", "user")):
            if metrics.get(key) is not None:
                line.append(f" · {rate(metrics[key], f'per {name}')}")
        lines.append(line)
    return lines


def step_lines(steps: list[Mapping[str, Any]], width: int) -> list[Text]:
    """The pipeline steps, applied and skipped, with reasons."""
    if not steps:
        return []
    lines = [heading("Steps")]
    for step in steps:
        detail = [step["status"], _modules(step.get("matched"))]
        text = f"{step['name']}: {', '.join(part for part in detail if part)}"
        text += f" ({step['reason']})" if step.get("reason") else ""
        lines += bullet(text, width, "" if step["status"] == "applied" else "dim")
    return lines


def kernel_lines(kernels: list[Mapping[str, Any]], width: int) -> list[Text]:
    """Which kernel fills how many slots, and who chose it: `attention/standard ×61 = flash (default)`."""
    told = []
    for kernel in kernels:
        slots = f"{kernel['op']}/{kernel.get('variant') or 'standard'} ×{count(kernel['slots'])}"
        told.append(f"{slots} = {kernel['name']} ({kernel['source']})")
    return facts("kernels", told, width)


def provenance_lines(provenance: Any, width: int) -> list[Text]:
    """Where the machine's coefficients come from."""
    if not provenance:
        return []
    if isinstance(provenance, Mapping):
        return facts("figures", pairs(provenance), width)
    texts = [provenance] if isinstance(provenance, str) else [str(item) for item in provenance]
    return facts("figures", texts, width)


def _uncosted(op: Any) -> str:
    return " · ".join(pairs(op)) if isinstance(op, Mapping) else str(op)


def _modules(matched: Any) -> str:
    """How many modules a step touched; nothing for a step that touches none or counts none."""
    if not isinstance(matched, int) or not matched:
        return ""
    return "1 module" if matched == 1 else f"{count(matched)} modules"
