"""A model reference becomes a blueprint: names, folders and hub ids in, a module on the meta device out."""
