"""What comes out of a program: as candidates, as votes, and as verdicts."""
