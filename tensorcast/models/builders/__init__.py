"""Builders of model types that transformers has no class for: one file per family, imported when a model asks."""
