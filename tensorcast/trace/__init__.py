"""From a deployed module to an OpTable: dispatch mode, layer reuse, liveness, fitting, and the cache on disk."""
