"""How good a model's vectors and scores are, with confidence, beside a lexical baseline."""
