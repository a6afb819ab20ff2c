"""What was measured: read once, kept in columns, with commits in order."""
