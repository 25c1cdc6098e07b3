"""Files that a long run keeps, and that survive its process."""
