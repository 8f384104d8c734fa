"""Where shards of a sweep are computed, with which models, and how their rows are kept."""
