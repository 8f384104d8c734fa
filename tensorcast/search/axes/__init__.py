"""What a sweep covers: values and ranges of options, and the space that they span."""
