"""The part of commands that is about pictures."""
