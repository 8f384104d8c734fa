"""Start lines: a deployment as the arguments of a serving engine, from the engines' own documentation."""
