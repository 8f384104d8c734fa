"""Measured tables → coefficients: reading, fitting, scoring, writing."""
