"""The torch engine: packed, variable-length, one forward pass a device likes best."""
