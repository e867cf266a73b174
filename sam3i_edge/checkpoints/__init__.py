"""Official checkpoint layouts to ours, one module a layout."""
