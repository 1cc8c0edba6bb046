"""Recording of live cameras into files that end by themselves, without encoding them again."""
