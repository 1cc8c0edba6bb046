"""What faces add to a report: people, the times at which they are on screen, their attributes and pictures."""
