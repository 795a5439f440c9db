//! Which broker to dial, and when.
