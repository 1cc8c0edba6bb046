"""Live cameras: recorded, followed, continued."""
