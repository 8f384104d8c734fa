"""An estimate for people and programs: terminal, JSON, CSV. Each works from the dict of `Estimate.to_dict()` alone."""
