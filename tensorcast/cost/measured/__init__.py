"""The published and self-made tables of measured kernels, one file per family: columns, protocols, kernel names."""
