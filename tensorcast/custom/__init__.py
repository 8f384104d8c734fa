"""User code: where it comes from, how it is loaded, and what it brought along.

Code arrives as an installed plugin, a file of ./custom_model, a path in TENSORCAST_CUSTOM or a `--custom` path. All of
it does the same thing, it adds entries to catalogs (models, profiles, pipelines, kernels, operators); a `--custom` file
may also define `__model__`, the model to simulate.
"""
