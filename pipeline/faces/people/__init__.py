"""Identities: galleries, tracks, clusters and the registry of people, computed from the faces of a store."""
