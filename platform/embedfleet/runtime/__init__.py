"""Requests into results on one replica: tokenize, batch, run, finish. Knows no Ray and no protobuf."""
