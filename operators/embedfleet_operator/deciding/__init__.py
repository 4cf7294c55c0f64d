"""What is wanted of the cluster, from what is known. Pure."""
