"""One module a format: each takes a source and gives a `Reading`, whose chunks hold raw columns and say where every row is."""
