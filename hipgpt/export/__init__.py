"""A finished run in the file formats of other projects."""
