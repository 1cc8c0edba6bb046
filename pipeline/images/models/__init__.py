"""Networks that turn a whole picture into one vector."""
