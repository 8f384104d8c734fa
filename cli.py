"""`python cli.py VERB …`: the `tensorcast` command from a checkout, without installing it."""

from __future__ import annotations

from tensorcast.cli.main import main

if __name__ == "__main__":
    main()
