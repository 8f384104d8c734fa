"""Many configurations of one deployed model at once: columns in, columns of figures out."""
