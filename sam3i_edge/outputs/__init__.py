"""Where the answers about many pictures go: lines, pictures, a video, annotations of the usual formats."""
