"""`tensorcast ui`: the figures of `simulate` in a local web page, as its sliders move."""
