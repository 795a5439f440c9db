//! Variable-length integers (zigzag for signed ones, as in record batches; unsigned in flexible messages).
