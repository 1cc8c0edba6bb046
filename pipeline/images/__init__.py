"""Images: features of millions of pictures."""
