"""Local features of pictures, matched in pairs."""
