"""The files that pages load when they are asked for a commit or a case."""
