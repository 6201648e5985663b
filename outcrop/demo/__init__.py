"""The life cycle on a private server."""
