"""Small models that come with the package, so that everything runs offline."""
