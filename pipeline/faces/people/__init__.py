"""Who is who: galleries, tracks, clusters and the registry of people, computed from what a store holds of the faces."""
