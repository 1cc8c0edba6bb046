"""The part of a report about objects: classes over time, pictures of them, and what lines and zones counted."""
