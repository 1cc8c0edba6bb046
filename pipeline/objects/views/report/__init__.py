"""What objects add to a report: classes over time, pictures of them, and what lines and zones counted."""
