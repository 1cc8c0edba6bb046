"""Features of whole pictures: frames of videos, or the images of a folder."""
