"""Building culvert's image wherever one can be built: by Docker, or by buildah without any daemon."""
