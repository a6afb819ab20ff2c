"""Tables and what stands in them, for pages and for terminals."""
