"""Alternatives side by side, and where one overtakes the other."""
