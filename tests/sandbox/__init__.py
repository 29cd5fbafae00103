"""The local voice."""
