"""What the documentation of a serving engine says: how each setting is spelt, and on which page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorcast.catalog import Catalog
from tensorcast.emit.launch import Launch
from tensorcast.errors import DeploymentError

READ = "2026-11-21"


@dataclass(frozen=True)
class Page:
    """A page of documentation: its address, the version it describes, the day it was read."""

    url: str
    version: str
    date: str = READ


@dataclass(frozen=True)
class Word:
    """What a setting or a value is called, and the page that says so."""

    text: str
    page: Page


@dataclass(frozen=True)
class Start:
    """Settings of one server, each (what, value) with `what` a key of `Server.flags`, and remarks for a person."""

    settings: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """One serving engine.

    `release`: the newest one when its documentation was read. `memory`: what of the device's memory it takes unless
    told otherwise. `flags`: setting → its flag. `dimensions`: parts of a plan it can have.
    `quantises`: scheme → the word with which the server quantises 16-bit weights itself; `loads`: weight formats that
    it reads from a checkpoint, () = no limit. `kv_cache`: format → word. `vendors` of its machines, () = any.
    `settings(launch)`: the flags' values, or a DeploymentError; `render(server, launch, start, role)`: the text.
    `transfer`: connector → word, of a prefill server and a decode server; `roles(word, role, launch)`: the settings
    that these two need besides. `elsewhere`: page on servers that span machines, `router`: page on what sends
    requests to prefill and decode servers.
    """

    name: str
    title: str
    release: str
    memory: str
    flags: Mapping[str, Word]
    dimensions: tuple[str, ...]
    settings: Callable[[Launch], Start]
    render: Callable[[Server, Launch, Start, str], str]
    elsewhere: Page
    quantises: Mapping[str, Word] = field(default_factory=dict)
    loads: tuple[str, ...] = ()
    kv_cache: Mapping[str, Word] = field(default_factory=dict)
    vendors: tuple[str, ...] = ()
    transfer: Mapping[str, Word] = field(default_factory=dict)
    roles: Callable[[str, str, Launch], Mapping[str, Any]] | None = None
    router: Page | None = None

    def check(self, launch: Launch) -> None:
        """DeploymentError naming what of the deployment this server has no word for, and what it can."""
        if self.vendors and launch.vendor and launch.vendor not in self.vendors:
            raise DeploymentError(f"{self.title} runs on {', '.join(self.vendors)} devices, not on {launch.machine}")
        for name, size in launch.plan.items():
            if (size is True or size > 1) and name not in self.dimensions:
                what = f"--{name.replace('_', '-')}" + ("" if size is True else f" {size}")
                raise DeploymentError(f"{self.title} has no setting for {what}; it can set {_all(self.dimensions)}")
        if launch.scheme is not None and launch.scheme not in self.quantises:
            able = f"it quantises to {_all(self.quantises)} itself" if self.quantises else "it quantises nothing itself"
            raise DeploymentError(
                f"{self.title} does not turn {launch.weights} into {launch.scheme}: {able}; "
                f"give a checkpoint that is quantised so, with --quant auto"
            )
        if strange := [fmt for fmt in launch.stored if self.loads and fmt not in self.loads]:
            can = _all(self.loads)
            raise DeploymentError(
                f"{self.title} reads no {strange[0]} weights, which {launch.weights} has; it has {can}"
            )
        if launch.kv_cache is not None and launch.kv_cache not in self.kv_cache:
            own = f"the model's own ({launch.dtype})"
            can = _all((own, *self.kv_cache))
            raise DeploymentError(f"{self.title} has no word for a KV cache in {launch.kv_cache}; it can set {can}")

    def flag(self, setting: str) -> str:
        return self.flags[setting].text

    def pages(self, start: Start) -> list[Page]:
        """The pages that the settings were read from, each once."""
        return list(dict.fromkeys(self.flags[setting].page for setting in start.settings))


def refuse(server: str, what: str, can: str) -> DeploymentError:
    """The error of a server that has no setting for `what`: it names what the server can."""
    return DeploymentError(f"{server} cannot run {what}; {can}")


def _all(names: Any) -> str:
    return ", ".join(names)


SERVERS: Catalog[Server] = Catalog(
    "server", normalize=lambda name: name.strip().lower(), how="one of vllm, sglang, trtllm, mindie"
)
