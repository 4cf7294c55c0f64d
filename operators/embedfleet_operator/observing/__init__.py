"""What is known of a fleet at one moment, and the verdict on each of its resources. Pure."""
