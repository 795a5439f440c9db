//! Harness shared by the tests, benchmarks and tools of the workspace.
