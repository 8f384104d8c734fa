"""What the transformation steps install into a foreign module: forwards that emit one operator each.

Every installer overrides `forward` on instances, never on classes, so models with different plans live side by side.
"""
