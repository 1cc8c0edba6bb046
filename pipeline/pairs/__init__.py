"""Local features of pictures, and the pairs of pictures that they match."""
