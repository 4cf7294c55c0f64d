"""The only place with Ray and gRPC servers: wire messages in, replicas, wire messages out."""
