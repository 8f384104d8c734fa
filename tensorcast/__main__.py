"""`python -m tensorcast VERB …`: the same as the `tensorcast` command."""

from __future__ import annotations

from tensorcast.cli.main import main

if __name__ == "__main__":
    main()
