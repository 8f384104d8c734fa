"""Machines: what a device can do, how devices are wired, and where each figure comes from."""
