"""Files that programs read: JSON, CSV, Parquet; SI units, every digit."""
