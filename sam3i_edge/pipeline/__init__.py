"""From a picture and words to masks: the steps around the graphs."""
