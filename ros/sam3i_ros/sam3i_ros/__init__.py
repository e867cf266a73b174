"""A ROS 2 node that segments what a sentence describes, by sam3i-edge."""
