"""A fleet on this machine: a Ray node, Serve's REST interface, an edge, and what was started."""
