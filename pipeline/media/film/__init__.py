"""Films made from films: reading every frame, blurring and drawing on it, writing picture and sound."""
