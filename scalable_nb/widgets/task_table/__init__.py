"""The live task table and its static forms."""
