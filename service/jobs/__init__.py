"""What is done to a whole gallery, one module a job: library functions that print nothing."""
