"""The SQLite store. Empty, so that `statements` can be imported without the schema's libraries."""
