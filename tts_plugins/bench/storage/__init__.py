"""What a bench keeps on disk, so that it survives kill -9 and resumes."""
