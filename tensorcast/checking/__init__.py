"""Checks of a model or a machine before it is used: what `tensorcast check` prints and `ModelContract` asserts.

`target.py` says what was named; `structure.py`, `ranks.py` and `prices.py` hold the checks of a model, `machine.py`
those of a hardware file. A check is a function of its subject: it returns one line about what it saw, raises `Failed`
when that is wrong and `Skipped` when there is nothing to look at.
"""
