"""Many configurations at once: sweeps, Pareto fronts, the best plan under limits. No torch before a model is traced."""
