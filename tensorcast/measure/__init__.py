"""Measure kernels on a real machine with torch, into the tables that `calibrate` and `accuracy` read."""
