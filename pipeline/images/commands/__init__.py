"""What commands do for pictures."""
