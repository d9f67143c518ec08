"""Reports: from recordings to a document with its sections, figures and provenance."""
