"""What faces add to a report: people, when they are on screen, their attributes and pictures."""
