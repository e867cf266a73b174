"""A data set's labels, from pictures and instructions."""
