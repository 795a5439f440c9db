//! Merging an answer into what is known.
