"""Images of vision-language models: what their processor makes of a size, and one pass of tower and projector."""
