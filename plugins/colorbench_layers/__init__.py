"""Layers that several models share. It registers nothing; it is a plugin so that its code counts as theirs does."""
