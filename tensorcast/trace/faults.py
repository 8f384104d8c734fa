"""A model that fails while it runs on meta: one line with what failed and where, as for any other bad input."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorcast.custom.loading import shown
from tensorcast.errors import ModelError, TensorcastError
from tensorcast.layers.patching import code_modules

LIBRARIES = ("torch.", "transformers.", "diffusers.", "tensorcast.")


@contextmanager
def said_in_one_line(model) -> Iterator[None]:
    """Turn an exception out of a model's forward into a ModelError.

    A library's own models fail too: on sizes that do not go together, on values that a traced model has not got, or,
    cut for tensor parallelism, where their code takes the number of heads from somewhere else than the module.
    """
    try:
        yield
    except TensorcastError:
        raise
    except Exception as fault:
        files = _own_files(model)
        frames = [f for f in traceback.extract_tb(fault.__traceback__) if f.filename in files]
        where = f" ({shown(Path(frames[-1].filename))}:{frames[-1].lineno})" if frames else ""
        text = " ".join(str(fault).split())[:300]
        what = f"{type(model.module).__name__} does not run on the meta device: {type(fault).__name__}: {text}{where}"
        raise ModelError(f"{model.blueprint.source.name}: {what}{_advice(model)}") from fault


def _own_files(model) -> set[str]:
    """Files of the model's code that no library brings."""
    own = [name for name in code_modules(model.module) if not f"{name}.".startswith(LIBRARIES)]
    return {file for name in own if (file := getattr(sys.modules.get(name), "__file__", None))}


def _advice(model) -> str:
    """The usual reason on one of several ranks.

    With tensor parallelism, a number of heads that the code keeps under a name of its own; with sequence parallelism, a
    plan of the class that leaves something whole which has to be cut.
    """
    if model.plan.sp > 1:
        return f"; with --sp {model.plan.sp} the class's own sequence-parallel plan does not fit its code; use --dp"
    if model.plan.tp == 1:
        return ""
    return f"; with --tp {model.plan.tp} its attention must keep its heads as num_heads and num_key_value_heads"
