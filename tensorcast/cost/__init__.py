"""Work → seconds, on NumPy arrays: one file per family of operators."""
