"""`tensorcast completion`: the script that lets a shell complete verbs, options and names, and what it is answered.

While a word is typed the shell runs the command with `_TENSORCAST_COMPLETE=SHELL_complete`; `main` gives that to
`answer`. No code of the user's runs then, and nothing heavy is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from tensorcast.cli.options import Verb, debug_option

PROGRAM = "tensorcast"

BASH = """\
%(complete_func)s() {
    local kind word
    COMPREPLY=()
    while IFS=, read -r kind word; do
        case $kind in
            plain) COMPREPLY+=("$word") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
FISH = """\
function %(complete_func)s
    set -lx %(complete_var)s fish_complete
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -t)
    for each in (%(prog_name)s 2>/dev/null)
        set -l parts (string split -m 1 "," -- $each)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                __fish_complete_path $parts[2]
            case dir
                __fish_complete_directories $parts[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""
BREAKS = "=:@"
"""Where bash, unless told otherwise, takes a word apart: what stands before is there already."""


class _Whole(ShellComplete):
    """Suggestions are whole words: that for `--hw=h1` is `--hw=h100`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        self.ctx_args["obj"] = tuple(args)  # click forgets the words of a line that ends in an option
        items = super().get_completions(args, incomplete)
        name, equals, _ = incomplete.partition("=")
        if equals and name.startswith("--"):
            for item in items:
                item.value = f"{name}={item.value}"
        return items


class Bash(_Whole, BashComplete):
    """Takes the line as it was typed, as the words that bash makes of it have lost what was between them."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        words = split_arg_string(line)
        return words[1:] if line[-1:].isspace() else words[1:-1], "" if line[-1:].isspace() else words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        there = 1 + max(incomplete.rfind(each) for each in BREAKS)
        items = super().get_completions(args, incomplete)
        for item in items:
            item.value = item.value[there:]
        return items


class Zsh(_Whole, ZshComplete):
    pass


class Fish(_Whole, FishComplete):
    source_template = FISH  # click's would take a list of values apart


SHELLS: dict[str, tuple[type[ShellComplete], str]] = {
    "bash": (Bash, 'in ~/.bashrc: eval "$(tensorcast completion bash)"'),
    "zsh": (Zsh, 'in ~/.zshrc, after compinit: eval "$(tensorcast completion zsh)"'),
    "fish": (Fish, "tensorcast completion fish > ~/.config/fish/completions/tensorcast.fish"),
}
"""Shell → (who answers it, how it is told to ask)."""


@click.command(
    "completion",
    cls=Verb,
    short_help="Let the shell complete verbs, options, models, machines.",
    examples=tuple(f"tensorcast completion {shell}" for shell in SHELLS),
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@debug_option
def command(shell: str, debug: bool) -> None:
    """Print the script that makes Tab complete verbs, options and their values: models, machines, kernels, files.

    \b
    bash  eval "$(tensorcast completion bash)" in ~/.bashrc
    zsh   eval "$(tensorcast completion zsh)" in ~/.zshrc, after compinit
    fish  tensorcast completion fish | source in ~/.config/fish/config.fish
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """What a shell is to read, with a line on how to install it."""
    _, how = SHELLS[shell]
    return f"{_asked(shell).source().rstrip()}\n\n# To keep it, {how}\n"


def answer(instruction: str) -> int:
    """Print the script (`bash_source`) or suggestions (`bash_complete`); an exit code."""
    shell, _, what = instruction.partition("_")
    if shell not in SHELLS or what not in ("source", "complete"):
        print(f"error: _TENSORCAST_COMPLETE={instruction}: {' or '.join(SHELLS)}, then _source", file=sys.stderr)
        return 2
    if what == "source":
        click.echo(script(shell), nl=False)
        return 0
    try:
        click.echo(_asked(shell).complete())
    except Exception:
        # A half-typed line may be anything, and a message would land in the middle of it.
        return 1
    return 0


def _asked(shell: str) -> ShellComplete:
    from tensorcast.cli.main import COMPLETE, cli

    return SHELLS[shell][0](cli, {}, PROGRAM, COMPLETE)


def suggested(kind: str, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """What may stand for a value of that kind ("MODEL", "FILE" …) and begins with `incomplete`."""
    done, comma, rest = incomplete.rpartition(",") if "," in kind else ("", "", incomplete)
    kind = kind.split(",")[0]
    if kind == "NAME":
        # `show model NAME`, `new hardware NAME --like …`: the words before say what is named.
        kind = next((ENTRIES[word] for word in ctx.find_root().obj if word in ENTRIES), "MODEL")
    found = [name for name in NAMES.get(kind, list)() if name.startswith(rest)]
    # A model's hub id only where nothing shorter would do.
    found = [name for name in found if "/" in rest or kind != "MODEL" or "/" not in name] or found
    items = [CompletionItem(f"{done}{comma}{name}") for name in dict.fromkeys(found)]
    return items + [CompletionItem(incomplete, type=PATHS[kind]) for _ in range(kind in PATHS)]


def models() -> Iterable[str]:
    from tensorcast.models.entries import known_names

    return sorted(known_names())


def machines() -> Iterable[str]:
    from tensorcast.hardware.load import aliases, names

    return sorted((*names(), *aliases()))


def kernels() -> Iterable[str]:
    """Those that ship with TensorCast, as --kernel takes them."""
    from tensorcast.kernels import list_kernels

    for row in list_kernels():
        variant = "" if row["variant"] == "standard" else f"/{row['variant']}"
        yield f"{row['op']}{variant}={row['name']}"


def figures() -> Iterable[str]:
    from tensorcast.search.evaluation.figures import FIGURES

    return FIGURES


def families() -> Iterable[str]:
    from tensorcast.hardware.coefficient import FAMILIES

    return FAMILIES


def number_formats() -> Iterable[str]:
    from tensorcast.formats import FORMATS

    return FORMATS


def cache_formats() -> Iterable[str]:
    from tensorcast.quantization.plan import KV_FORMATS

    return KV_FORMATS


def schemas() -> Iterable[str]:
    from tensorcast.report.tables.schema import SCHEMAS

    return SCHEMAS


NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "MODEL": models, "MACHINE": machines, "KERNEL": kernels, "FIGURE": figures, "FAMILY": families,
    "FORMAT": number_formats, "KV_FORMAT": cache_formats, "SCHEMA": schemas,
}  # fmt: skip
"""What stands for an option's value in the help → the names there are."""
ENTRIES = {"model": "MODEL", "models": "MODEL", "hardware": "MACHINE", "kernels": "KERNEL", "schema": "SCHEMA"}
PATHS = {"FILE": "file", "PATH": "file", "DIR": "dir", "MODEL": "file", "MACHINE": "file"}
"""Values that are, or may be, a path."""
