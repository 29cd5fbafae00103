"""The database, and the only thread pool."""
