"""Making the cluster what was decided: the only writes, and the only calls of Ray and models."""
