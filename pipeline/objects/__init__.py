"""Objects in pictures: in the images of a folder, or in the frames of videos."""
