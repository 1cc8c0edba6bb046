"""Features of pictures handed over: a matrix and the names of its rows, in the formats of other programs."""
